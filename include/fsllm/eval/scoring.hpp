// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// A share of batches: of those that are not done yet, in their order, number index, index + count, ... A
/// batch follows from all rows together, never from the share, so that a row's result has the same bits for
/// any number of processes.
struct BatchShare {
  int64_t index = 0, count = 1;
  std::set<int64_t> done = {};  ///< batches whose results the caller has
};

struct BatchDone {
  int64_t number = 0, rows = 0;
  int64_t rows_over = 0;  ///< that all shares are over with by now, if they are equally fast
};

/// Told of each batch that a process has computed, with its results.
template <class Result>
using OnBatch = std::function<void(BatchDone const& batch, std::vector<Result> const& results)>;

/// Tokens of which the last `targets` are scored given all before them.
struct ScoredRow {
  std::vector<int32_t> ids;  ///< more than `targets`
  int64_t targets = 0;       ///< at most the model's positions
};

struct RowScore {
  int64_t row = 0;
  double loglikelihood = 0;  ///< sum of log-probabilities (natural logarithm) of the targets
  bool is_greedy = true;     ///< every target is the most likely token at its place
};

/// Scores rows in passes of at most `batch_tokens` tokens (and at least one row), and returns those of this
/// share by ascending row. The last token is not fed; rows longer than the model's positions + 1 lose their
/// beginning; rows that feed the same tokens share one pass, and what several begin with (the examples of a
/// few-shot prompt) is computed once.
std::vector<RowScore> score_rows(CausalLM& model, std::vector<ScoredRow> const& rows, int64_t batch_tokens,
                                 BatchShare const& share = {}, OnBatch<RowScore> const& on_batch = {});

/// Cuts prefix + tokens into rows that together score every token of `tokens` once, each within `max_length`
/// fed tokens and with as much context as fits (lm-evaluation-harness: get_rolling_token_windows with
/// context_len 1, make_disjoint_window).
std::vector<ScoredRow> rolling_windows(std::vector<int32_t> const& tokens, int32_t prefix,
                                       int64_t max_length);

}  // namespace fsllm
