// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/prepare.hpp"

#include <algorithm>
#include <set>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

using Rows = std::vector<int64_t>;

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
