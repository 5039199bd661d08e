// SPDX-License-Identifier: Apache-2.0
// The patterns are those of the models' tokenizer.json files.
#include "known_words.hpp"

#include <vector>

#include "fsllm/core/table.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

constexpr char const* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char const* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char const* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char const* kBloom = R"( ?[^(\s|[.,!?…。，、।۔،])]+)";
constexpr char const* kCjk = R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";

json byte_level_words(bool words) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", words}};
}

json cut(char const* pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

json digit_words() {
  return {{"type", "Digits"}, {"individual_digits", true}};
}

json sequence(json steps) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

KnownWords gpt2() {
  return {nullptr, byte_level_words(true)};
}

/// Digits one by one, before GPT-2's words.
KnownWords single_digits() {
  return {nullptr, sequence({digit_words(), byte_level_words(true)})};
}

KnownWords llama3() {
  return {nullptr, sequence({cut(kLlama3), byte_level_words(false)}), true, true};
}

KnownWords qwen2() {
  return {{{"type", "NFC"}}, sequence({cut(kQwen2), byte_level_words(false)})};
}

KnownWords gpt_neox() {
  return {{{"type", "NFC"}}, byte_level_words(true)};
}

KnownWords bloom() {
  return {nullptr, sequence({cut(kBloom), byte_level_words(false)})};
}

KnownWords tekken() {
  return {nullptr, sequence({cut(kTekken), byte_level_words(false)}), true, true};
}

KnownWords deepseek_coder() {
  return {nullptr, sequence({cut(R"([\r\n])"), cut(R"(\s?\p{L}+)"), cut(R"(\s?\p{P}+)"), cut(kCjk),
                             digit_words(), byte_level_words(false)})};
}

KnownWords falcon() {
  return {nullptr, sequence({{{"type", "Punctuation"}, {"behavior", "Contiguous"}},
                             byte_level_words(true),
                             {{"type", "Digits"}, {"individual_digits", false}},
                             cut("[0-9][0-9][0-9]")})};
}

std::vector<Row<KnownWords (*)()>> const& table() {
  static std::vector<Row<KnownWords (*)()>> const rows{
      {"gpt-2", gpt2, ""},
      {"gpt2", gpt2, ""},
      {"mpt", gpt2, ""},
      {"olmo", gpt2, ""},
      {"phi-2", gpt2, ""},
      {"roberta-bpe", gpt2, ""},
      {"gpt-neox", gpt_neox, ""},
      {"bloom", bloom, ""},
      {"smollm", single_digits, ""},
      {"starcoder", single_digits, ""},
      {"refact", single_digits, ""},
      {"command-r", single_digits, ""},
      {"codeshell", single_digits, ""},
      {"exaone", single_digits, ""},
      {"llama-bpe", llama3, ""},
      {"llama3", llama3, ""},
      {"llama-v3", llama3, ""},
      {"falcon3", llama3, ""},
      {"smaug-bpe", llama3, ""},
      {"dbrx", llama3, ""},
      {"qwen2", qwen2, ""},
      {"deepseek-r1-qwen", qwen2, ""},
      {"megrez", qwen2, ""},
      {"tekken", tekken, ""},
      {"deepseek-coder", deepseek_coder, ""},
      {"falcon", falcon, ""},
  };
  return rows;
}

}  // namespace

KnownWords known_words(std::string const& name, std::string const& where) {
  return find_row(table(), name, where).build();
}

}  // namespace fsllm
