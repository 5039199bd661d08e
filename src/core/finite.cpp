// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/finite.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/aminmax.h>

#include <cmath>

namespace fsllm {

bool is_finite(at::Tensor const& tensor) {
  if (tensor.numel() == 0 || !tensor.is_floating_point()) return true;
  at::NoGradGuard const no_grad;
  auto const [least, most] = at::aminmax(tensor.detach());  // NaN goes through both
  return std::isfinite(least.item<double>()) && std::isfinite(most.item<double>());
}

std::string first_not_finite(TensorMap const& tensors) {
  for (auto const& [name, tensor] : tensors)
    if (!is_finite(tensor)) return name;
  return "";
}

}  // namespace fsllm
