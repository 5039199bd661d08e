// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/dropout.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>

#include "fsllm/core/error.hpp"

namespace fsllm {

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

}  // namespace fsllm
