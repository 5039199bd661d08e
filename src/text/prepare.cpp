// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/prepare.hpp"

#include <algorithm>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/text/template.hpp"

namespace fsllm {
namespace {

using Rows = std::vector<int64_t>;

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

/// A row can be learnt from if something behind its first token is scored.
bool has_target(EncodedSample const& sample) {
  return !sample.ids.empty() &&
         std::find(sample.is_target.begin() + 1, sample.is_target.end(), 1) != sample.is_target.end();
}

void check_ids(EncodedSample const& encoded, Sample const& sample, int64_t vocab_size) {
  auto const largest = std::max_element(encoded.ids.begin(), encoded.ids.end());
  FSLLM_CHECK(largest == encoded.ids.end() || *largest < vocab_size,
              "{}: token id {} (the model's vocabulary has {}). Use the tokenizer that belongs to the model.",
              sample.place, *largest, vocab_size);
}

/// Categories of this client's rows, in alphabetical order; rows without one have none.
std::vector<std::string> categories_of(std::vector<Sample> const& samples, SplitPlan::Parts const& parts) {
  std::set<std::string> names;
  for (auto const* rows : {&parts.train, &parts.val, &parts.test})
    for (int64_t const row : *rows) names.insert(samples[static_cast<size_t>(row)].category);
  names.erase("");
  return {names.begin(), names.end()};
}

/// The sample as it goes into a shard, counted; nothing if it is dropped.
std::optional<EncodedSample> fit_sample(Sample const& sample, DataConfig const& config,
                                        Tokenizer const* tokenizer, int64_t vocab_size,
                                        PrepareCounts& counts) {
  auto encoded = encode_sample(sample, config, tokenizer);
  check_ids(encoded, sample, vocab_size);
  auto const bos = tokenizer != nullptr ? tokenizer->bos_id() : std::nullopt;
  bool const too_long = truncate_sample(encoded, config.tok_len, config.truncate, bos);
  if (too_long && config.truncate == "drop") {
    ++counts.dropped_too_long;
    return std::nullopt;
  }
  if (!has_target(encoded)) {
    ++counts.dropped_without_target;
    return std::nullopt;
  }
  ++counts.rows;
  counts.truncated += too_long ? 1 : 0;
  return encoded;
}

}  // namespace

PrepareCounts& operator+=(PrepareCounts& a, PrepareCounts const& b) {
  a.rows += b.rows;
  a.truncated += b.truncated;
  a.dropped_too_long += b.dropped_too_long;
  a.dropped_without_target += b.dropped_without_target;
  a.skipped_bad += b.skipped_bad;
  return a;
}

EncodedSample encode_sample(Sample const& sample, DataConfig const& config, Tokenizer const* tokenizer) {
  if (sample.is_tokens) return {sample.ids, sample.is_target};
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

ClientShard make_shard(std::vector<Sample> const& samples, SplitPlan::Parts const& parts, int64_t client_id,
                       DataConfig const& config, Tokenizer const* tokenizer, int64_t vocab_size,
                       uint64_t seed, PrepareCounts& counts) {
  ClientShard shard{client_id, config.type, config.splitter};
  if (tokenizer != nullptr) {
    shard.tokenizer_sha256 = tokenizer->sha256();
    shard.prompt_template = config.prompt_template;
  }
  shard.seed = static_cast<int64_t>(seed);
  shard.tok_len = config.tok_len;
  shard.vocab_size = vocab_size;
  shard.group_names = categories_of(samples, parts);
  auto const group_of = [&](std::string const& category) {
    auto const name = std::lower_bound(shard.group_names.begin(), shard.group_names.end(), category);
    return category.empty() ? -1 : static_cast<int32_t>(name - shard.group_names.begin());
  };
  auto const add = [&](Rows const& rows, TokenSplit& split) {
    for (int64_t const row : rows) {
      auto const& sample = samples[static_cast<size_t>(row)];
      auto const encoded = fit_sample(sample, config, tokenizer, vocab_size, counts);
      if (encoded) split.append(encoded->ids, encoded->is_target, group_of(sample.category));
    }
  };
  add(parts.train, shard.train);
  add(parts.val, shard.val);
  add(parts.test, shard.test);
  return shard;
}

}  // namespace fsllm
