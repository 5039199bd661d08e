// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "fsllm/model/linear.hpp"

namespace fsllm {

/// True where dropout with this probability keeps an element of x; drawn from the context's generator, which
/// must be there (`what` is named where it is not). Undefined outside training or where nothing is dropped.
at::Tensor keep_mask(at::Tensor const& x, double probability, ForwardContext& context,
                     std::string const& what);
/// x with dropout: kept elements are scaled by 1 / (1 - probability).
at::Tensor dropped(at::Tensor const& x, double probability, ForwardContext& context, std::string const& what);

}  // namespace fsllm
