// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/encode.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

std::string end_of_text(Tokenizer const& tokenizer) {
  auto const eos = tokenizer.eos_id();
  FSLLM_CHECK(eos,
              "the tokenizer has no end-of-text token (answers must end with one). Set "
              "llm.added_tokens.eos_token to the one it has, or to a new one such as </s>.");
  return tokenizer.decode({*eos});
}

EncodedSample encode_instruction(Sample const& sample, PromptTemplate const& prompt,
                                 Tokenizer const& tokenizer, int64_t kept) {
  auto const before = prompt_text(prompt, sample);
  auto prompt_ids = tokenizer.encode_beginning(before);
  auto const prompt_tokens = prompt_ids.size();
  EncodedSample encoded;
  encoded.ids = static_cast<int64_t>(prompt_tokens) < kept
                    ? tokenizer.encode_beginning(before + sample.output + end_of_text(tokenizer))
                    : std::move(prompt_ids);
  encoded.is_target.assign(encoded.ids.size(), 1);
  std::fill_n(encoded.is_target.begin(), std::min(prompt_tokens, encoded.ids.size()), uint8_t{0});
  return encoded;
}

EncodedSample encode_whole(Sample const& sample, Tokenizer const& tokenizer) {
  EncodedSample encoded;
  encoded.ids = tokenizer.encode_beginning(sample.output + end_of_text(tokenizer));
  encoded.is_target.assign(encoded.ids.size(), 1);
  return encoded;
}

/// Where the tokens of a text's beginning end among the tokens of the whole text. A token that lies across
/// that place is number `first`, and `last` is behind it.
struct Boundary {
  size_t first = 0, last = 0;
};

Boundary boundary(std::vector<int32_t> const& whole, std::vector<int32_t> const& beginning) {
  auto const size = static_cast<ptrdiff_t>(std::min(whole.size(), beginning.size()));
  auto const same = static_cast<size_t>(
      std::mismatch(whole.begin(), whole.begin() + size, beginning.begin()).first - whole.begin());
  return {same, std::min(whole.size(), same + (beginning.size() > same ? 1 : 0))};
}

/// A token is scored if any part of it stands in a scored piece.
EncodedSample encode_chat(Sample const& sample, PromptTemplate const& prompt, Tokenizer const& tokenizer) {
  auto const pieces = chat_segments(prompt, sample, tokenizer);
  std::string text;
  for (auto const& piece : pieces) text += piece.text;
  EncodedSample encoded;
  encoded.ids = tokenizer.encode(text, false);
  encoded.is_target.assign(encoded.ids.size(), 0);
  size_t end = 0;
  for (auto const& piece : pieces) {
    size_t const begin = end;
    end += piece.text.size();
    if (!piece.scored || piece.text.empty()) continue;
    auto const at = [&](size_t bytes) {
      return boundary(encoded.ids, tokenizer.encode(std::string_view(text).substr(0, bytes), false));
    };
    auto const first = begin == 0 ? 0 : at(begin).first;
    auto const last = end == text.size() ? encoded.ids.size() : at(end).last;
    for (size_t i = first; i < last; ++i) encoded.is_target[i] = 1;
  }
  return encoded;
}

/// Tokens before the first scored one.
int64_t prompt_length(EncodedSample const& sample) {
  return std::find(sample.is_target.begin(), sample.is_target.end(), 1) - sample.is_target.begin();
}

/// How many tokens may go from the prompt's begin. Without BOS the last prompt token stays, for the first
/// scored one needs a predecessor.
int64_t removable(EncodedSample const& sample) {
  return std::max<int64_t>(prompt_length(sample) - 1, 0);
}

/// `cut` tokens go from the front (behind a BOS), and what is then beyond `tok_len` from the end.
void cut_sample(EncodedSample& sample, int64_t cut, int64_t tok_len, std::optional<int32_t> bos) {
  if (cut > 0) {
    int64_t const kept_front = bos && sample.ids[0] == *bos ? 1 : 0;
    sample.ids.erase(sample.ids.begin() + kept_front, sample.ids.begin() + kept_front + cut);
    sample.is_target.erase(sample.is_target.begin() + kept_front,
                           sample.is_target.begin() + kept_front + cut);
  }
  if (static_cast<int64_t>(sample.ids.size()) <= tok_len) return;
  sample.ids.resize(static_cast<size_t>(tok_len));
  sample.is_target.resize(static_cast<size_t>(tok_len));
}

}  // namespace

EncodedSample encode_sample(Sample const& sample, PromptTemplate const& prompt, Tokenizer const* tokenizer,
                            int64_t kept) {
  if (sample.kind == SampleKind::tokens) return {sample.ids, sample.is_target};
  FSLLM_CHECK(tokenizer != nullptr,
              "{}: a text row (the model folder has no tokenizer.json or tokenizer.model). Copy the "
              "tokenizer there, or give rows with input_ids and labels.",
              sample.place);
  if (sample.kind == SampleKind::text) return encode_whole(sample, *tokenizer);
  FSLLM_CHECK(
      prompt.chat != nullptr || sample.kind != SampleKind::chat,
      "{}: a chat (data.prompt_template = {} is for an instruction and its answer). Set data.prompt_template "
      "to a chat template, such as chatml or model (system and history make a chat of an instruction).",
      sample.place, prompt.name);
  if (prompt.chat == nullptr) return encode_instruction(sample, prompt, *tokenizer, kept);
  try {
    return encode_chat(sample, prompt, *tokenizer);
  } catch (Error const& error) {
    fail(fmt::format("{}: {}", sample.place, error.what()));
  }
}

bool truncate_sample(EncodedSample& sample, int64_t tok_len, std::string const& policy,
                     std::optional<int32_t> bos) {
  auto const length = static_cast<int64_t>(sample.ids.size());
  if (length <= tok_len) return false;
  if (policy == "drop") return true;
  int64_t const cut = policy == "prompt_left" ? std::min(length - tok_len, removable(sample)) : 0;
  cut_sample(sample, cut, tok_len, bos);
  return true;
}

bool truncate_pair(EncodedSample& a, EncodedSample& b, int64_t tok_len, std::string const& policy,
                   std::optional<int32_t> bos) {
  auto const over = static_cast<int64_t>(std::max(a.ids.size(), b.ids.size())) - tok_len;
  if (over <= 0) return false;
  if (policy == "drop") return true;
  int64_t const cut = policy == "prompt_left" ? std::min({over, removable(a), removable(b)}) : 0;
  cut_sample(a, cut, tok_len, bos);
  cut_sample(b, cut, tok_len, bos);
  return true;
}

}  // namespace fsllm
