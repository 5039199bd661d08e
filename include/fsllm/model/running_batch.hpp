// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "fsllm/model/generate.hpp"

namespace fsllm {

struct RunningBatchOptions {
  int64_t most_rows = 64;         ///< continued at once
  int64_t most_tokens = 2048;     ///< of prompts in one forward pass, at least one prompt
  std::vector<int32_t> stop_ids;  ///< a row ends before these (EOS)
};

/// What a forward pass gave for a row.
struct NewTokenEvent {
  enum class End { no, stop_id, length };
  int64_t row = 0;
  std::optional<int32_t> token;           ///< none where the row ends without one
  std::optional<TokenLogprobs> logprobs;  ///< of the token, where asked for
  std::vector<TokenLogprobs> prompt;  ///< of the prompt's tokens from the second on, once, where asked for
  End end = End::no;
};

/// Rows that are continued together; they join and leave between forward passes (iteration-level scheduling,
/// Yu et al. 2022, Orca). A row that begins like one that is or was just there begins with a copy of its keys
/// and values. For inference, with one adapter: another one needs another batch.
class RunningBatch {
 public:
  RunningBatch(CausalLM& model, RunningBatchOptions options);

  /// Puts a row at the end of the queue; its number, counted from 0. Rows that can never run are Errors.
  int64_t join(GenerateRow row);
  /// Takes a row out; numbers that have ended are ignored.
  void leave(int64_t row);
  bool idle() const { return alive_.empty() && waiting_.empty(); }
  /// Rows that wait for room.
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  /// Tokens that went through the model so far.
  int64_t tokens_fed() const { return tokens_fed_; }
  /// One forward pass: an event for each row in it.
  std::vector<NewTokenEvent> step();

 private:
  struct Row {
    int64_t number = 0;
    GenerateRow given;
    std::vector<int32_t> ids;  ///< prompt and answer
    int64_t fed = 0;           ///< of these, how many the cache has
    int64_t new_tokens() const { return static_cast<int64_t>(ids.size() - given.prompt.size()); }
  };
  /// Where a row's beginning can be copied from.
  struct Beginning {
    int64_t tokens = 0;
    KvCache const* cache = nullptr;
    int64_t row = 0;
    int64_t virtual_tokens = 0;  ///< that the cached row holds before its own
  };

  std::vector<NewTokenEvent> end_empty_rows();
  void admit();
  bool comes_after_its_like(Row const& row, size_t admitted_from, int64_t cached) const;
  Beginning longest_beginning(Row const& row) const;
  void restart_turned_rows();
  std::vector<NewTokenEvent> forward();
  NewTokenEvent extend(Row& row, at::Tensor const& logits, int64_t best) const;
  void retire(std::vector<bool> const& ended);

  CausalLM& model_;
  RunningBatchOptions options_;
  int64_t next_number_ = 0, tokens_fed_ = 0;
  std::deque<Row> waiting_;
  std::vector<Row> alive_;
  KvCache cache_;            ///< a row for each of alive_
  std::optional<Row> last_;  ///< that ended, with its cache
  KvCache last_cache_;
};

}  // namespace fsllm
