// SPDX-License-Identifier: Apache-2.0
#include "random.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace fsllm::detail {
namespace {

template <class Draw>
void fill(at::Tensor const& tensor, Draw const& draw) {
  auto const values = at::empty(tensor.sizes(), at::kFloat);
  auto* out = values.mutable_data_ptr<float>();
  for (int64_t i = 0; i < values.numel(); ++i) out[i] = static_cast<float>(draw());
  tensor.copy_(values);
}

}  // namespace

at::Tensor trainable(at::IntArrayRef shape, at::Device device) {
  return at::zeros(shape, at::TensorOptions().dtype(at::kFloat).device(device)).set_requires_grad(true);
}

void fill_uniform(at::Tensor const& tensor, double bound, Philox random) {
  fill(tensor, [&] { return (2 * random.uniform() - 1) * bound; });
}

void fill_normal(at::Tensor const& tensor, double deviation, Philox random) {
  fill(tensor, [&] { return random.normal() * deviation; });
}

}  // namespace fsllm::detail
