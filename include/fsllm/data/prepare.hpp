// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/data/dataset.hpp"
#include "fsllm/data/splitter.hpp"
#include "fsllm/io/shard.hpp"
#include "fsllm/text/encode.hpp"

namespace fsllm {

/// What became of the samples; add one client's to another's.
struct PrepareCounts {
  int64_t rows = 0;                    ///< in the shards; pairs are counted, not their two rows
  int64_t truncated = 0;               ///< of those, the ones cut to llm.tok_len
  int64_t dropped_too_long = 0;        ///< `data.truncate: drop`
  int64_t dropped_without_target = 0;  ///< no scored token (left)
  int64_t dropped_alike = 0;           ///< pairs whose answers are the same tokens, once they are cut
};
PrepareCounts& operator+=(PrepareCounts& a, PrepareCounts const& b);

/// How samples become rows of shards.
struct PrepareJob {
  DataConfig data;
  uint64_t seed = 0;
  Tokenizer const* tokenizer = nullptr;  ///< null: token rows only
  int64_t vocab_size = 0;                ///< of the model: an id beyond it is an Error
  int threads = 1;
  PromptTemplate prompt = {};  ///< make_prompt_template(data)
};

/// Prompt, tokenise, mark targets, truncate: the row as a shard holds it. Nothing if it is dropped; `counts`
/// says why.
std::optional<EncodedSample> prepare_sample(Sample const& sample, PrepareJob const& job,
                                            PrepareCounts& counts);
/// All rows that a shard holds of a sample: that one, or of a pair the chosen answer's and the rejected
/// one's, which is dropped where either is.
std::vector<EncodedSample> prepare_rows(Sample const& sample, PrepareJob const& job, PrepareCounts& counts);

/// One shard to write: where it lies, whose rows it holds (indices into the row table), and the folder in
/// which it is made (see AtomicFile).
struct ShardTask {
  std::filesystem::path path;
  int64_t client_id = 0;
  SplitPlan::Parts const* parts = nullptr;
  std::filesystem::path scratch = {};
};

/// Reads the data set once, record by record, and writes the shards of `tasks` on the way, tokenising with
/// job.threads threads. Memory holds their tokens up to a million a split, the rest lies on disk until the
/// shard is written (compat.fsllm, where rows keep the order of the split, holds all). The bytes depend on
/// neither the threads nor which shards are written together. `progress` hears how many rows of clients are
/// done. Counts do not include the server's rows, which the clients hold too.
std::vector<ShardSummary> write_shards(std::vector<ShardTask> const& tasks, RowTable const& table,
                                       PrepareJob const& job, PrepareCounts& counts,
                                       std::function<void(int64_t)> const& progress = {});

}  // namespace fsllm
