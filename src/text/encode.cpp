// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/encode.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/text/template.hpp"

namespace fsllm {
namespace {

EncodedSample encode_text(Sample const& sample, DataConfig const& config, Tokenizer const* tokenizer) {
  FSLLM_CHECK(tokenizer != nullptr,
              "{}: a text row (the model folder has no tokenizer.json or tokenizer.model). Copy the "
              "tokenizer there, or give rows with input_ids and labels.",
              sample.place);
  auto const eos = tokenizer->eos_id();
  FSLLM_CHECK(eos,
              "the tokenizer has no end-of-text token (answers must end with one). Name it as eos_token in "
              "tokenizer_config.json beside the model.");
  auto const prompt = find_prompt_template(config.prompt_template)(sample);
  EncodedSample encoded;
  encoded.ids = tokenizer->encode(prompt + sample.output + tokenizer->decode({*eos}));
  encoded.is_target.assign(encoded.ids.size(), 1);
  auto const prompt_tokens = std::min(tokenizer->encode(prompt).size(), encoded.ids.size());
  std::fill_n(encoded.is_target.begin(), prompt_tokens, uint8_t{0});
  return encoded;
}

/// Tokens before the first scored one.
int64_t prompt_length(EncodedSample const& sample) {
  return std::find(sample.is_target.begin(), sample.is_target.end(), 1) - sample.is_target.begin();
}

}  // namespace

EncodedSample encode_sample(Sample const& sample, DataConfig const& config, Tokenizer const* tokenizer) {
  if (sample.kind == SampleKind::tokens) return {sample.ids, sample.is_target};
  return encode_text(sample, config, tokenizer);
}

bool truncate_sample(EncodedSample& sample, int64_t tok_len, std::string const& policy,
                     std::optional<int32_t> bos) {
  auto const length = static_cast<int64_t>(sample.ids.size());
  if (length <= tok_len) return false;
  if (policy == "drop") return true;
  if (policy == "prompt_left") {
    int64_t const kept_front = bos && sample.ids[0] == *bos ? 1 : 0;
    // Without BOS the last prompt token stays, for the first scored one needs a predecessor.
    int64_t const removable = prompt_length(sample) - 1;
    int64_t const cut = std::clamp<int64_t>(length - tok_len, 0, std::max<int64_t>(removable, 0));
    sample.ids.erase(sample.ids.begin() + kept_front, sample.ids.begin() + kept_front + cut);
    sample.is_target.erase(sample.is_target.begin() + kept_front,
                           sample.is_target.begin() + kept_front + cut);
  }
  if (static_cast<int64_t>(sample.ids.size()) > tok_len) {
    sample.ids.resize(static_cast<size_t>(tok_len));
    sample.is_target.resize(static_cast<size_t>(tok_len));
  }
  return true;
}

}  // namespace fsllm
