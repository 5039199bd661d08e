// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/scoring.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "fsllm/model/finite.hpp"

namespace fsllm {
namespace {

/// Logits held at once, so that a large vocabulary does not multiply into gigabytes.
constexpr int64_t kMostLogits = int64_t{1} << 24;

/// One distinct input and the rows that it answers.
struct DistinctInput {
  std::vector<int32_t> input;
  std::vector<size_t> rows;
};

/// What is fed for a row: all but the last token, cut from the left to the model's positions.
std::vector<int32_t> input_of(ScoredRow const& row, int64_t max_length) {
  auto const end = row.ids.end() - 1;
  return {end - std::min<int64_t>(max_length, end - row.ids.begin()), end};
}

std::vector<DistinctInput> distinct_inputs(std::vector<ScoredRow> const& rows, int64_t max_length) {
  std::map<std::vector<int32_t>, std::vector<size_t>> rows_of;
  for (size_t row = 0; row < rows.size(); ++row) rows_of[input_of(rows[row], max_length)].push_back(row);
  std::vector<DistinctInput> inputs;
  for (auto& [input, indices] : rows_of) inputs.push_back({input, std::move(indices)});
  std::stable_sort(inputs.begin(), inputs.end(), [](DistinctInput const& a, DistinctInput const& b) {
    return a.input.size() > b.input.size();
  });
  return inputs;
}

/// Where a target's logits come from, and whose it is.
struct Target {
  int64_t position, id;
  size_t row;
};

/// Adds the targets' log-probabilities given hidden states [N, hidden] of the batch.
void add_scores(CausalLM& model, at::Tensor const& hidden, std::vector<Target> const& targets,
                std::vector<RowScore>& scores) {
  auto const step = static_cast<size_t>(std::max<int64_t>(1, kMostLogits / model.config().vocab_size));
  for (size_t first = 0; first < targets.size(); first += step) {
    auto const count = std::min(step, targets.size() - first);
    std::vector<int64_t> positions, ids;
    for (size_t i = first; i < first + count; ++i) {
      positions.push_back(targets[i].position);
      ids.push_back(targets[i].id);
    }
    auto const logits =
        model.logits(at::index_select(hidden, 0, at::tensor(positions, at::kLong).to(hidden.device())));
    auto const wide = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
    auto const index = at::tensor(ids, at::kLong).to(hidden.device()).unsqueeze(1);
    auto const found = at::gather(at::log_softmax(wide, -1), 1, index).squeeze(1).to(at::kCPU, at::kDouble);
    auto const best = at::argmax(wide, -1).to(at::kCPU);
    for (size_t i = 0; i < count; ++i) {
      auto& score = scores[targets[first + i].row];
      score.loglikelihood += found.const_data_ptr<double>()[i];
      score.is_greedy = score.is_greedy && best.const_data_ptr<int64_t>()[i] == ids[i];
    }
  }
}

void score_batch(CausalLM& model, std::vector<ScoredRow> const& rows,
                 std::vector<DistinctInput> const& inputs, size_t first, size_t end,
                 std::vector<RowScore>& scores) {
  std::vector<int64_t> ids;
  std::vector<Target> targets;
  RaggedInput input;
  for (size_t i = first; i < end; ++i) {
    ids.insert(ids.end(), inputs[i].input.begin(), inputs[i].input.end());
    input.offsets.push_back(static_cast<int64_t>(ids.size()));
    for (auto const row : inputs[i].rows)
      for (int64_t back = rows[row].targets; back > 0; --back)
        targets.push_back({input.offsets.back() - back, rows[row].ids[rows[row].ids.size() - back], row});
  }
  input.ids = at::tensor(ids, at::kLong);
  add_scores(model, model.hidden_states(input.ids, model.pass(input)), targets, scores);
}

}  // namespace

std::vector<RowScore> score_rows(CausalLM& model, std::vector<ScoredRow> const& rows, int64_t batch_tokens,
                                 BatchShare share) {
  at::NoGradGuard const no_grad;
  std::vector<RowScore> all(rows.size()), scores;
  std::vector<size_t> computed;
  auto const inputs = distinct_inputs(rows, model.config().max_positions);
  int64_t batch = 0;
  for (size_t first = 0; first < inputs.size(); ++batch) {
    auto tokens = static_cast<int64_t>(inputs[first].input.size());
    size_t end = first + 1;
    while (end < inputs.size() && tokens + static_cast<int64_t>(inputs[end].input.size()) <= batch_tokens)
      tokens += static_cast<int64_t>(inputs[end++].input.size());
    if (share.has(batch)) {
      score_batch(model, rows, inputs, first, end, all);
      for (size_t i = first; i < end; ++i)
        computed.insert(computed.end(), inputs[i].rows.begin(), inputs[i].rows.end());
    }
    first = end;
  }
  std::ranges::sort(computed);
  for (auto const row : computed) {
    scores.push_back(all[row]);
    scores.back().row = static_cast<int64_t>(row);
  }
  if (std::ranges::any_of(scores, [](auto const& score) { return !std::isfinite(score.loglikelihood); }))
    check_finite_weights(model);
  return scores;
}

std::vector<ScoredRow> rolling_windows(std::vector<int32_t> const& tokens, int32_t prefix,
                                       int64_t max_length) {
  std::vector<ScoredRow> rows;
  auto const total = static_cast<int64_t>(tokens.size());
  for (int64_t done = 0; done < total;) {
    int64_t const targets = std::min(max_length, total - done), end = done + targets;
    int64_t const start = std::max<int64_t>(0, end - max_length - 1);
    ScoredRow row{{}, targets};
    if (done == 0) row.ids.push_back(prefix);
    row.ids.insert(row.ids.end(), tokens.begin() + (done == 0 ? 0 : start), tokens.begin() + end);
    rows.push_back(std::move(row));
    done = end;
  }
  return rows;
}

}  // namespace fsllm
