// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

namespace fsllm::detail {

/// x, as part of a graph in which `call` is made when the gradient of x is known, before it goes on.
at::Tensor with_backward_call(at::Tensor const& x, std::function<void()> call);

}  // namespace fsllm::detail
