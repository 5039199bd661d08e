// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "fsllm/eval/requests.hpp"
#include "fsllm/eval/task.hpp"

namespace fsllm {

/// What one batch gave: all that a later process needs in order not to compute it again.
struct FinishedBatch {
  bool is_written = false;  ///< texts, else scores; each kind has numbers of its own
  int64_t number = 0, rows = 0;
  std::vector<RowScore> scores;
  std::vector<NewToken> tokens;
};

/// The items of a task as rows of tokens for one model.
class TaskWork {
 public:
  /// Examples are dropped from the front until prompt and answer fit the model's positions. `tokenizer` must
  /// outlive this.
  TaskWork(EvalTask const& task, ModelConfig const& config, Tokenizer const& tokenizer);

  int64_t rows() const { return static_cast<int64_t>(scored_.size() + continued_.size()); }
  /// The batches of process `index` of `count`, which follow from the items alone, without those in `kept`.
  /// `finished` is told of each, and of how many rows are over with it (BatchDone).
  RequestResults compute(
      CausalLM& model, int64_t batch_tokens, int64_t index, int64_t count,
      std::vector<FinishedBatch> const& kept = {},
      std::function<void(FinishedBatch const&, int64_t rows_over)> const& finished = {}) const;
  /// One answer an item, from the results of all shares.
  std::vector<ItemAnswer> answers(RequestResults const& results) const;

 private:
  struct Place {
    size_t scored = 0, scores = 0;    ///< its rows for choices, one each
    size_t windows = 0;               ///< rows of its document, behind those
    size_t continued = 0, texts = 0;  ///< its rows to write
    int64_t dropped_shots = 0;
    bool is_cut = false;
  };
  void add(TaskItem const& item, size_t number, ModelConfig const& config);
  std::vector<int32_t> encoded(TaskItem const& item, std::string const& prompt) const;
  /// The prompt that leaves `room` tokens, and how much of it had to go.
  std::string fitting_prompt(TaskItem const& item, int64_t room, Place& place) const;

  Tokenizer const& tokenizer_;
  std::vector<Place> places_;
  std::vector<ScoredRow> scored_;
  std::vector<Continuation> continued_;
};

}  // namespace fsllm
