// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "fsllm/model/quantized.hpp"

namespace fsllm {

/// Copies a Hugging Face folder with plain weights, one tensor at a time, the matrices of the blocks `blocks`
/// packed as bitsandbytes saves them, with the quantization_config that transformers loads them by. A model
/// whose matrices are stored transposed (GPT-2) is an Error.
void pack_blocks(std::filesystem::path const& source, std::vector<int64_t> const& blocks, Quantization kind,
                 std::filesystem::path const& out);

}  // namespace fsllm
