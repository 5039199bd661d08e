// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/text/added_tokens.hpp"

namespace fsllm {

/// What the files beside a vocabulary say about BOS, EOS, pad, added tokens and decoding:
/// tokenizer_config.json first, then special_tokens_map.json, then the ids of config.json; added tokens from
/// tokenizer_config.json, then added_tokens.json. All of them may be missing; a role whose token is "" is not
/// given.
struct SpecialTokenRules {
  std::optional<std::string> bos, eos, pad, unk;
  std::optional<int32_t> bos_id, eos_id, pad_id;  ///< config.json; of a list of ids the first
  std::optional<bool> add_bos, add_eos;           ///< given explicitly in tokenizer_config.json
  /// With ids; their flags replace those of the vocabulary's own file.
  std::vector<AddedToken> added;
  /// sep, cls, mask, additional_special_tokens, extra_special_tokens: special, with the ids that the
  /// vocabulary has for them, else new ones behind it. Their own ids mean nothing.
  std::vector<AddedToken> further;
  bool clean_up = false;      ///< clean_up_tokenization_spaces
  bool clean_up_bpe = false;  ///< clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
  std::optional<bool> add_prefix_space;  ///< of files that do not say it themselves
  bool legacy = false;                   ///< SentencePiece: a prefix space behind each special token too
  std::string tokenizer_class;           ///< without "Fast"; "" where nothing names it
  std::string model_type;                ///< of config.json; "" where nothing names it
};

SpecialTokenRules read_special_token_rules(std::filesystem::path const& model_dir);

/// One added token as tokenizer.json and tokenizer_config.json write it; its id stands apart. `where` names
/// the file.
AddedToken parse_added_token(nlohmann::json const& entry, int64_t id, std::string const& where);
/// transformers' clean_up_tokenization: no space before punctuation and English contractions.
std::string clean_up_spaces(std::string text);

}  // namespace fsllm
