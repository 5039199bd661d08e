// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/io/shard.hpp"
#include "fsllm/text/dataset.hpp"
#include "fsllm/text/encode.hpp"
#include "fsllm/text/splitter.hpp"

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

/// Prompt, tokenise, mark targets, truncate, collect into one shard. `tokenizer` may be null for token rows.
/// `vocab_size` is the model's: an id beyond it is an Error.
ClientShard make_shard(std::vector<Sample> const& samples, SplitPlan::Parts const& parts, int64_t client_id,
                       DataConfig const& config, Tokenizer const* tokenizer, int64_t vocab_size,
                       uint64_t seed, PrepareCounts& counts);

}  // namespace fsllm
