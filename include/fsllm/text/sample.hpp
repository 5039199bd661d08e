// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fsllm {

/// One training example before tokenisation (instruction, input, output), or already tokenised (ids,
/// is_target).
struct Sample {
  std::string instruction, input, output;
  std::string category;            ///< "" for none; LDA and meta split by it
  std::string owner;               ///< value of the field that splitter natural goes by
  std::vector<int32_t> ids;        ///< token rows only
  std::vector<uint8_t> is_target;  ///< token rows only
  bool is_tokens = false;
  std::string place;   ///< "file:line", for messages
  int64_t record = 0;  ///< number of its record among all records of the data set, bad ones too
};

}  // namespace fsllm
