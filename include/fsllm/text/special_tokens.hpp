// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fsllm {

/// What the files beside a vocabulary say about BOS, EOS and pad: tokenizer_config.json first, then
/// special_tokens_map.json, then the ids of config.json. All of them may be missing.
struct SpecialTokenRules {
  std::optional<std::string> bos, eos, pad, unk;
  std::optional<int32_t> bos_id, eos_id, pad_id;  ///< config.json; of a list of ids the first
  std::optional<bool> add_bos, add_eos;           ///< given explicitly in tokenizer_config.json
};

SpecialTokenRules read_special_token_rules(std::filesystem::path const& model_dir);

}  // namespace fsllm
