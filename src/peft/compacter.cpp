// SPDX-License-Identifier: Apache-2.0
// Compacter (Karimi Mahabadi et al. 2021): bottlenecks whose matrices are sums of Kronecker products of one
// small rule, which all of them share, and matrices of rank one.
#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>

#include <nlohmann/json.hpp>

#include "bottleneck.hpp"
#include "fsllm/core/error.hpp"
#include "methods.hpp"

namespace fsllm::detail {

at::Tensor hypercomplex_matrix(at::Tensor const& rule, at::Tensor const& left, at::Tensor const& right) {
  int64_t const n = rule.size(0), rows = left.size(1), columns = right.size(2);
  auto const parts = at::bmm(left, right).view({n, rows * columns});
  auto const sum = at::mm(rule.view({n, n * n}).t(), parts);  // [n·n, rows·columns]
  return sum.view({n, n, rows, columns}).transpose(1, 2).reshape({n * rows, n * columns});
}

std::any read_compacter(Arguments& arguments, PeftConfig& shared) {
  arguments.assume({{"reduction_factor", 32}, {"non_linearity", "gelu"}, {"phm_dim", 4}});
  return read_bottleneck(arguments, shared);
}

std::unique_ptr<Peft> make_compacter(PeftConfig const& config, CausalLM& model) {
  FSLLM_CHECK(
      options_of<BottleneckOptions>(config).phm_dim > 0,
      "{}.phm_dim = 0 (compacter's matrices are Kronecker products). Set 4, or adapter_method: bottleneck.",
      kArgs);
  return make_bottleneck(config, model);
}

}  // namespace fsllm::detail
