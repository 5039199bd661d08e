// SPDX-License-Identifier: Apache-2.0
#include "gpt2_files.hpp"

#include "fsllm/core/table.hpp"
#include "known_words.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

/// Classes of transformers that read these files, and the words each cuts text into.
std::vector<Row<char const*>> const& classes() {
  static std::vector<Row<char const*>> const rows{
      {"GPT2Tokenizer", "gpt-2", ""},       {"GPTNeoXTokenizer", "gpt-neox", ""},
      {"CodeGenTokenizer", "gpt-2", ""},    {"Qwen2Tokenizer", "qwen2", ""},
      {"PreTrainedTokenizer", "gpt-2", ""}, {"TokenizersBackend", "gpt-2", ""}};
  return rows;
}

/// A line is "a b"; the first may be "#version: 0.2".
json merges_of(std::string const& text) {
  json merges = json::array();
  for (size_t begin = 0; begin < text.size();) {
    size_t const end = std::min(text.find('\n', begin), text.size());
    auto line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(std::move(line));
  }
  return merges;
}

}  // namespace

std::optional<Gpt2Files> find_gpt2_files(std::filesystem::path const& model_dir) {
  for (auto const& [vocabulary, merges] :
       {std::pair("vocab.json", "merges.txt"), {"encoder.json", "vocab.bpe"}})
    if (std::filesystem::exists(model_dir / vocabulary) && std::filesystem::exists(model_dir / merges))
      return Gpt2Files{model_dir / vocabulary, model_dir / merges};
  return std::nullopt;
}

json gpt2_document(json const& vocabulary, std::string const& merges, SpecialTokenRules const& rules,
                   std::string const& where) {
  auto const kind = rules.tokenizer_class.empty() ? "GPT2Tokenizer" : rules.tokenizer_class;
  auto words = known_words(find_row(classes(), kind, where + ": tokenizer_class").build, where);
  auto& bytes = words.pre_tokenizer["type"] == "Sequence" ? words.pre_tokenizer["pretokenizers"].back()
                                                          : words.pre_tokenizer;
  bytes["add_prefix_space"] = rules.add_prefix_space.value_or(false);
  json added = json::array();
  for (char const* const name : {"<|endoftext|>"})
    if (vocabulary.is_object() && vocabulary.contains(name))
      added.push_back({{"id", vocabulary.at(name)}, {"content", name}, {"special", true}});
  return {{"added_tokens", std::move(added)},
          {"normalizer", words.normalizer},
          {"pre_tokenizer", words.pre_tokenizer},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges_of(merges)}}}};
}

}  // namespace fsllm
