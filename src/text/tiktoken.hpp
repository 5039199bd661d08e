// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "fsllm/text/special_tokens.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// Does this begin as a tiktoken vocabulary does: one token in base64 and its rank a line?
bool is_tiktoken(std::string const& content);
/// Tokens in the file: special ones have the ids behind them.
int64_t tiktoken_ranks(std::string const& content);
/// LLaMA 3's special tokens behind so many ranks, with the names that `renamed` gives them.
std::vector<AddedToken> tiktoken_specials(int64_t ranks, std::vector<AddedToken> const& renamed);
/// A tiktoken vocabulary with the words and the 256 special tokens of LLaMA 3, whose tokenizer.model this is;
/// their ids follow the ranks, and added_tokens_decoder may name them otherwise. BOS is added. `where` names
/// the file.
std::unique_ptr<Tokenizer> read_tiktoken(std::string const& content, SpecialTokenRules rules,
                                         std::string const& sha256, std::string const& where);

}  // namespace fsllm
