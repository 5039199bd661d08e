// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "fsllm/model/linear.hpp"

namespace fsllm::detail {

/// x Wᵀ for few rows x [N, in], as steps of generation have them: one pass over the weight as it is stored
/// (fp32, bf16, fp16 or int8), with sums in fp32. None where the processor, the types, many rows or a wanted
/// gradient ask for another way.
std::optional<at::Tensor> skinny_matmul(at::Tensor const& x, Linear const& linear);

}  // namespace fsllm::detail
