// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "fsllm/core/rng.hpp"
#include "fsllm/model/linear.hpp"

namespace fsllm::detail {

/// A zero fp32 tensor that learns.
at::Tensor trainable(at::IntArrayRef shape, at::Device device);

/// U(-bound, bound), drawn on the CPU in memory order.
void fill_uniform(at::Tensor const& tensor, double bound, Philox random);
/// N(0, deviation²).
void fill_normal(at::Tensor const& tensor, double deviation, Philox random);

/// True where dropout with this probability keeps an element of x; drawn from the context's generator, which
/// must be there (`what` is named where it is not). Undefined outside training or where nothing is dropped.
at::Tensor keep_mask(at::Tensor const& x, double probability, ForwardContext& context,
                     std::string const& what);
/// x with dropout: kept elements are scaled by 1 / (1 - probability).
at::Tensor dropped(at::Tensor const& x, double probability, ForwardContext& context, std::string const& what);

}  // namespace fsllm::detail
