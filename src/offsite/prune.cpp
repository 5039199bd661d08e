// SPDX-License-Identifier: Apache-2.0
#include "fsllm/offsite/prune.hpp"

#include <ATen/ops/abs.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/scatter.h>

#include <algorithm>

namespace fsllm {

at::Tensor pruned(at::Tensor const& weight, double sparsity, int64_t inputs) {
  auto const count = static_cast<int64_t>(sparsity * static_cast<double>(weight.size(inputs)));
  auto const order = at::argsort(weight.abs().to(at::kFloat), /*stable=*/true, inputs, /*descending=*/false);
  return at::scatter(weight, inputs, order.narrow(inputs, 0, count), 0);
}

TensorChange prune_middle(EmulatorPlan const& plan, bool conv1d) {
  return [places = plan.middle(), sparsity = plan.sparsity, conv1d](std::string const& name,
                                                                    at::Tensor const& values) {
    bool const middle = std::find(places.begin(), places.end(), block_of(name)) != places.end();
    return middle && values.dim() == 2 ? pruned(values, sparsity, conv1d ? 0 : 1) : values;
  };
}

TensorMap absent_weights(TensorMap const& middle, EmulatorPlan const& plan) {
  TensorMap masks;
  for (auto const& [name, tensor] : middle)
    if (plan.sparsity > 0 && tensor.dim() == 2) masks.emplace(name, tensor.detach().eq(0));
  return masks;
}

}  // namespace fsllm
