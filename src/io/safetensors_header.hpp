// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm {

/// One entry of a safetensors header; offsets count from the start of the file.
struct SafetensorsEntry {
  at::ScalarType type;
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> tensors;
  std::map<std::string, std::string> metadata;
};

/// Parses and checks the header of a whole file: its length, every type, shape and offset, and that the
/// tensors fill the data without overlap or gap. `source` is the file's name in errors.
SafetensorsHeader parse_safetensors_header(std::string_view file, std::string const& source);

}  // namespace fsllm
