// SPDX-License-Identifier: Apache-2.0
#include "random.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include "fsllm/core/error.hpp"

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

at::Tensor keep_mask(at::Tensor const& x, double probability, ForwardContext& context,
                     std::string const& what) {
  if (!context.training || probability == 0) return {};
  if (!context.dropout) fail_internal(__FILE__, __LINE__, "training with dropout needs a generator: " + what);
  auto const options = at::TensorOptions().dtype(at::kBool).device(context.dropout->device());
  return at::empty(x.sizes(), options).bernoulli_(1 - probability, context.dropout).to(x.device());
}

at::Tensor dropped(at::Tensor const& x, double probability, ForwardContext& context,
                   std::string const& what) {
  auto const mask = keep_mask(x, probability, context, what);
  return mask.defined() ? at::mul(x, mask).div(1 - probability) : x;
}

}  // namespace fsllm::detail
