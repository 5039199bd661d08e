// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "fsllm/io/gguf.hpp"

namespace fsllm {

/// Size of a GGUF element type: `bytes` for every `elements`.
struct GgufBlock {
  char const* name;
  uint32_t code;
  int64_t elements, bytes;
  void (*dequantize)(std::byte const* blocks, int64_t num_blocks, float* values);  ///< null: cannot be read
};

/// The row of a type's code, or null for one that is unknown.
GgufBlock const* find_gguf_block(uint32_t code);
GgufBlock const* find_gguf_block(std::string_view name);

struct GgufHeader {
  nlohmann::json metadata = nlohmann::json::object();
  std::map<std::string, GgufTensor> tensors;
  int64_t data_begin = 0;
};

/// Reads and checks everything before the tensor data. `source` is the name in messages.
GgufHeader parse_gguf_header(std::string_view file, std::string const& source);

}  // namespace fsllm
