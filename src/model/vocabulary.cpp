// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {
namespace {

/// The mean of the rows, summed in fp64 in their order: no parallel sum, whose order depends on threads.
at::Tensor mean_row(at::Tensor const& rows) {
  constexpr int64_t kPart = 1024;
  int64_t const count = rows.size(0), width = rows.numel() / count;
  std::vector<double> sums(static_cast<size_t>(width));
  for (int64_t begin = 0; begin < count; begin += kPart) {
    auto const part = rows.narrow(0, begin, std::min(kPart, count - begin)).to(at::kCPU, at::kDouble);
    auto const values = part.contiguous();
    auto const* value = values.const_data_ptr<double>();
    for (int64_t row = 0; row < values.size(0); ++row)
      for (auto& sum : sums) sum += *value++;
  }
  for (auto& sum : sums) sum /= static_cast<double>(count);
  return at::tensor(sums, at::kDouble);
}

}  // namespace

TensorMap grown_vocabulary(TensorMap const& vocabulary, int64_t vocab_size) {
  TensorMap grown;
  for (auto const& [name, old] : vocabulary) {
    int64_t const rows = old.size(0);
    if (vocab_size < rows) fail_internal(__FILE__, __LINE__, "a vocabulary that shrinks: " + name);
    auto shape = old.sizes().vec();
    shape[0] = vocab_size;
    auto tensor = at::empty(shape, old.options());
    tensor.narrow(0, 0, rows).copy_(old);
    if (vocab_size > rows) {
      auto const mean = mean_row(old).to(old.device(), old.scalar_type());
      auto const fresh = tensor.narrow(0, rows, vocab_size - rows);
      fresh.copy_((old.dim() == 1 ? mean : mean.view({1, -1})).expand_as(fresh));
    }
    grown.emplace(name, tensor);
  }
  return grown;
}

}  // namespace fsllm
