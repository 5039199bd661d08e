// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>

#include "weights.hpp"

namespace fsllm::detail {

/// Refuses a checkpoint whose weights a quantiser has packed (GPTQ, AWQ, FP8, compressed-tensors,
/// ..., and of bitsandbytes what with_bitsandbytes() does not read), by the quantiser's name. A
/// quantization_config beside plain weights means nothing.
void refuse_quantized(WeightSource const& source, std::filesystem::path const& model);

}  // namespace fsllm::detail
