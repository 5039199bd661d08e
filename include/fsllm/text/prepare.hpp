// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/io/shard.hpp"
#include "fsllm/text/dataset.hpp"
#include "fsllm/text/splitter.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// What became of the samples; add one client's to another's.
struct PrepareCounts {
  int64_t rows = 0;                    ///< in the shards
  int64_t truncated = 0;               ///< of those, the ones cut to llm.tok_len
  int64_t dropped_too_long = 0;        ///< `data.truncate: drop`
  int64_t dropped_without_target = 0;  ///< no scored token (left)
  int64_t skipped_bad = 0;             ///< rows that could not be read
};
PrepareCounts& operator+=(PrepareCounts& a, PrepareCounts const& b);

/// Token ids of one sample and which of them are scored.
struct EncodedSample {
  std::vector<int32_t> ids;
  std::vector<uint8_t> is_target;
};
/// Prompt + output + EOS; scored is what follows the prompt's tokens. Token rows are taken as they are.
EncodedSample encode_sample(Sample const& sample, DataConfig const& config, Tokenizer const* tokenizer);
/// Cuts to `tok_len` by the policy `data.truncate` (prompt_left keeps a BOS at the front, and cuts the
/// answer's end only when no prompt is left to cut); `drop` leaves the sample alone. True if it was too long.
bool truncate_sample(EncodedSample& sample, int64_t tok_len, std::string const& policy,
                     std::optional<int32_t> bos);

/// Prompt, tokenise, mark targets, truncate, collect into one shard. `tokenizer` may be null for token rows.
/// `vocab_size` is the model's: an id beyond it is an Error.
ClientShard make_shard(std::vector<Sample> const& samples, SplitPlan::Parts const& parts, int64_t client_id,
                       DataConfig const& config, Tokenizer const* tokenizer, int64_t vocab_size,
                       uint64_t seed, PrepareCounts& counts);

}  // namespace fsllm
