// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "fsllm/io/shard.hpp"
#include "fsllm/text/data_config.hpp"
#include "fsllm/text/sample.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// Reads all samples of `data.type` under `data.root` (datasets.hpp has the table of names).
/// Bad rows: Error with file:line, or counted and skipped (`data.on_bad_row`).
std::vector<Sample> read_samples(DataConfig const& config);

/// Sample indices of each client and split; every index exactly once.
struct SplitPlan {
  struct Parts {
    std::vector<int64_t> train, val, test;
  };
  Parts server;                ///< the union before clients (held-out data of the server: val and test)
  std::vector<Parts> clients;  ///< client k is entry k - 1
};
/// train / val / test first (training rows = int(share·n)), then each part over the clients, keyed by `seed`.
/// client_num above the rows, categories or field values of the data is an Error with advice.
SplitPlan plan_split(std::vector<Sample> const& samples, DataConfig const& config, int64_t client_num,
                     uint64_t seed);

struct PrepareCounts {
  int64_t rows = 0, truncated = 0, dropped_without_target = 0, skipped_bad = 0;
};

/// Prompt, tokenise, mark targets, truncate, collect into one shard. `tokenizer` may be null for token rows.
ClientShard make_shard(std::vector<Sample> const& samples, SplitPlan::Parts const& parts, int64_t client_id,
                       DataConfig const& config, Tokenizer const* tokenizer, int64_t vocab_size,
                       uint64_t seed, PrepareCounts& counts);

}  // namespace fsllm
