// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>

#include "fsllm/text/special_tokens.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// A tokenizer with the rules that it was made by.
struct RuledTokenizer {
  std::unique_ptr<Tokenizer> tokenizer;
  SpecialTokenRules rules;
};

RuledTokenizer load_ruled_tokenizer(std::filesystem::path const& model, TokenAdditions const& additions);

}  // namespace fsllm
