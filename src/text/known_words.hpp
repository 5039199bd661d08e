// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace fsllm {

/// The words that the tokenizer of a model family cuts text into, as parts of its tokenizer.json, under the
/// names of `tokenizer.ggml.pre`. An unknown name is an Error; `where` names file and key.
struct KnownWords {
  nlohmann::json normalizer, pre_tokenizer;
  bool ignore_merges = false;
  bool add_bos = false;  ///< where the file does not say
};
KnownWords known_words(std::string const& name, std::string const& where);

}  // namespace fsllm
