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

#include "batches.hpp"
#include "fsllm/model/finite.hpp"
#include "shared_prefix.hpp"

namespace fsllm {
namespace {

/// Logits held at once, so that a large vocabulary does not multiply into gigabytes.
constexpr int64_t kMostLogits = int64_t{1} << 24;

/// Tokens whose keys and values are held beside those of the prefixes.
constexpr int64_t kMostCached = 8192;

using detail::PrefixFamily;
using detail::ScoredInput;

/// What is fed for a row: all but the last token, cut from the left to the model's positions.
std::vector<int32_t> input_of(ScoredRow const& row, int64_t max_length) {
  auto const end = row.ids.end() - 1;
  return {end - std::min<int64_t>(max_length, end - row.ids.begin()), end};
}

/// In lexicographic order.
std::vector<ScoredInput> distinct_inputs(std::vector<ScoredRow> const& rows, int64_t max_length) {
  std::map<std::vector<int32_t>, std::vector<size_t>> rows_of;
  for (size_t row = 0; row < rows.size(); ++row) rows_of[input_of(rows[row], max_length)].push_back(row);
  std::vector<ScoredInput> inputs;
  for (auto& [ids, indices] : rows_of) {
    int64_t targets = 0;
    for (auto const row : indices) targets = std::max(targets, rows[row].targets);
    inputs.push_back({ids, std::ssize(ids) - targets, std::move(indices)});
  }
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

/// Rows of a forward pass: of each the tokens from `begin` on.
struct Fed {
  RaggedInput input;
  std::vector<int64_t> ids;
  std::vector<Target> targets;

  void add(std::vector<int32_t> const& tokens, int64_t begin, int64_t end) {
    ids.insert(ids.end(), tokens.begin() + begin, tokens.begin() + end);
    input.offsets.push_back(std::ssize(ids));
  }
  void add(ScoredInput const& scored, int64_t begin, std::vector<ScoredRow> const& rows) {
    add(scored.ids, begin, std::ssize(scored.ids));
    for (auto const row : scored.rows)
      for (int64_t back = rows[row].targets; back > 0; --back)
        targets.push_back({std::ssize(ids) - back, rows[row].ids[rows[row].ids.size() - back], row});
  }
  at::Tensor forward(CausalLM& model, KvCache* cache) {
    input.ids = at::tensor(ids, at::kLong);
    auto const pass = model.pass(input, {}, cache);
    auto hidden = model.hidden_states(input.ids, pass);
    if (cache != nullptr) pass.advance_cache();
    return hidden;
  }
};

/// Scores of one batch: prefixes in one pass, what follows them in as many as batch_tokens asks for.
class Batch {
 public:
  Batch(CausalLM& model, std::vector<ScoredRow> const& rows, std::vector<ScoredInput> const& inputs,
        int64_t batch_tokens, std::vector<RowScore>& scores)
      : model_(model), rows_(rows), inputs_(inputs), batch_tokens_(batch_tokens), scores_(scores) {}

  void score(std::vector<PrefixFamily> const& families) {
    Fed alone, prefixes;
    for (auto const& family : families) {
      if (family.prefix == 0)
        alone.add(inputs_[family.first], 0, rows_);
      else
        prefixes.add(inputs_[family.first].ids, 0, family.prefix);
    }
    if (!alone.ids.empty()) add_scores(model_, alone.forward(model_, nullptr), alone.targets, scores_);
    if (prefixes.ids.empty()) return;
    KvCache cache(model_.config().num_layers, prefixes.input.num_rows());
    prefixes.forward(model_, &cache);
    score_after(families, cache);
  }

 private:
  void score_after(std::vector<PrefixFamily> const& families, KvCache const& prefixes) {
    int64_t prefix = 0;
    for (auto const& family : families) {
      if (family.prefix == 0) continue;
      for (size_t i = family.first; i < family.end; ++i) {
        int64_t const length = std::ssize(inputs_[i].ids), own = length - family.prefix;
        if (!fed_.ids.empty() &&
            (std::ssize(fed_.ids) + own > batch_tokens_ || cached_ + length > kMostCached))
          flush();
        cached_ += length;
        cache_.add_row(prefixes, prefix, prefixes.past(prefix));
        fed_.add(inputs_[i], family.prefix, rows_);
      }
      ++prefix;
    }
    flush();
  }
  void flush() {
    add_scores(model_, fed_.forward(model_, &cache_), fed_.targets, scores_);
    fed_ = {};
    cache_ = KvCache(model_.config().num_layers, 0);
    cached_ = 0;
  }

  CausalLM& model_;
  std::vector<ScoredRow> const& rows_;
  std::vector<ScoredInput> const& inputs_;
  int64_t batch_tokens_;
  std::vector<RowScore>& scores_;
  Fed fed_;
  KvCache cache_{model_.config().num_layers, 0};
  int64_t cached_ = 0;
};

/// Rows that the inputs of a batch answer, ascending.
std::vector<size_t> rows_of(std::vector<PrefixFamily> const& batch, std::vector<ScoredInput> const& inputs) {
  std::vector<size_t> rows;
  for (auto const& family : batch)
    for (size_t i = family.first; i < family.end; ++i)
      rows.insert(rows.end(), inputs[i].rows.begin(), inputs[i].rows.end());
  std::ranges::sort(rows);
  return rows;
}

}  // namespace

std::vector<RowScore> score_rows(CausalLM& model, std::vector<ScoredRow> const& rows, int64_t batch_tokens,
                                 BatchShare const& share, OnBatch<RowScore> const& on_batch) {
  at::NoGradGuard const no_grad;
  std::vector<RowScore> all(rows.size()), scores;
  auto const inputs = distinct_inputs(rows, model.config().max_positions);
  auto const batches =
      detail::family_batches(inputs, detail::prefix_families(inputs, model.config()), batch_tokens);
  std::vector<int64_t> sizes;
  for (auto const& batch : batches) sizes.push_back(std::ssize(rows_of(batch, inputs)));
  detail::for_each_batch(share, sizes, [&](BatchDone const& done) {
    auto const& batch = batches[static_cast<size_t>(done.number)];
    Batch(model, rows, inputs, batch_tokens, all).score(batch);
    std::vector<RowScore> news;
    for (auto const row : rows_of(batch, inputs)) {
      news.push_back(all[row]);
      news.back().row = static_cast<int64_t>(row);
    }
    if (std::ranges::any_of(news, [](auto const& score) { return !std::isfinite(score.loglikelihood); }))
      check_finite_weights(model);
    scores.insert(scores.end(), news.begin(), news.end());
    if (on_batch) on_batch(done, news);
  });
  std::ranges::sort(scores, {}, &RowScore::row);
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
