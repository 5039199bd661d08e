// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include "fsllm/core/rng.hpp"

namespace fsllm::detail {

/// A zero fp32 tensor that learns.
at::Tensor trainable(at::IntArrayRef shape, at::Device device);

/// U(-bound, bound), drawn on the CPU in memory order.
void fill_uniform(at::Tensor const& tensor, double bound, Philox random);
/// N(0, deviation²).
void fill_normal(at::Tensor const& tensor, double deviation, Philox random);

}  // namespace fsllm::detail
