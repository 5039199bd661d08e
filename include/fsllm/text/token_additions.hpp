// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"

namespace fsllm {

struct SpecialTokenRules;
struct Tokenizer;

/// Keys `llm.added_tokens.*`: special tokens that a model's tokenizer gets beside its own. A token that it
/// has already only takes the role.
struct TokenAdditions {
  std::string eos, pad;                 ///< "": as the tokenizer has it
  std::vector<std::string> additional;  ///< without a role
  bool fs_llm = false;  ///< compat.fsllm: [PAD], </s>, <s> and <unk> for the roles that nothing has yet
  bool empty() const { return eos.empty() && pad.empty() && additional.empty() && !fs_llm; }
};

TokenAdditions load_token_additions(Config& config);

/// Puts the additions into the rules of `tokenizer`, which was read with these rules alone. New ids follow
/// its vocabulary in the order pad, eos, bos, unk, additional, behind those of tokens that the rules name and
/// the vocabulary lacks (as transformers gives them).
void add_tokens(SpecialTokenRules& rules, TokenAdditions const& additions, Tokenizer const& tokenizer);

/// Writes the tokenizer of a model (a folder or a GGUF file) with the additions into `out_dir`, which exists,
/// such that transformers.AutoTokenizer and load_tokenizer read the same ids from there.
void save_tokenizer(std::filesystem::path const& model, TokenAdditions const& additions,
                    std::filesystem::path const& out_dir);

/// Copies the tokenizer files and the chat template of a model folder as they are. A GGUF file has a template
/// alone, which becomes chat_template.jinja.
void copy_tokenizer(std::filesystem::path const& model, std::filesystem::path const& out_dir);
/// Does `dir` hold exactly what copy_tokenizer() makes of `model`?
bool is_tokenizer_copy(std::filesystem::path const& dir, std::filesystem::path const& model);

}  // namespace fsllm
