// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "fsllm/text/special_tokens.hpp"

namespace fsllm {

/// The two files of GPT-2's tokenizer: vocab.json with merges.txt, or encoder.json with vocab.bpe.
struct Gpt2Files {
  std::filesystem::path vocabulary, merges;
};
/// Nothing where a folder holds neither pair.
std::optional<Gpt2Files> find_gpt2_files(std::filesystem::path const& model_dir);
/// The tokenizer.json they stand for; `rules.tokenizer_class` tells the words (GPT-2's where it is "").
nlohmann::json gpt2_document(nlohmann::json const& vocabulary, std::string const& merges,
                             SpecialTokenRules const& rules, std::string const& where);

}  // namespace fsllm
