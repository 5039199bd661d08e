// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace fsllm {

/// What `tokenizer.ggml.pre` stands for, as parts of a tokenizer.json. An unknown name is an Error.
struct GgufWords {
  nlohmann::json normalizer, pre_tokenizer;
  bool ignore_merges = false;
  bool add_bos = false;  ///< where the file does not say
};
GgufWords gguf_words(std::string const& pre, std::string const& where);

}  // namespace fsllm
