// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/generate.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/max.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "fsllm/model/finite.hpp"

namespace fsllm {
namespace {

/// Inverse of the cumulative distribution softmax(logits / temperature) at a uniform number, in fp64.
int32_t sample(at::Tensor const& logits, GenerateRow const& row, size_t step) {
  auto const probabilities =
      at::softmax(logits.to(at::kCPU, at::kDouble).div_(row.temperature), -1).contiguous();
  auto const* p = probabilities.const_data_ptr<double>();
  double left = Philox(row.seed, Purpose::generation, 0, 0, step).uniform();
  int64_t const last = probabilities.numel() - 1;
  for (int64_t id = 0; id < last; ++id) {
    left -= p[id];
    if (left < 0) return static_cast<int32_t>(id);
  }
  return static_cast<int32_t>(last);
}

RaggedInput ragged(std::vector<std::vector<int32_t>> const& rows) {
  std::vector<int64_t> ids;
  RaggedInput input;
  for (auto const& row : rows) {
    ids.insert(ids.end(), row.begin(), row.end());
    input.offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  input.ids = at::tensor(ids, at::kLong);
  return input;
}

void check_rows(ModelConfig const& config, std::vector<GenerateRow> const& rows) {
  for (auto const& row : rows) {
    FSLLM_CHECK(!row.prompt.empty(), "an empty prompt (generation needs a token to start from). Give BOS.");
    FSLLM_CHECK(row.temperature >= 0, "temperature = {} (0 is greedy, above 0 samples). Raise it to 0.",
                row.temperature);
    auto const length = static_cast<int64_t>(row.prompt.size());
    FSLLM_CHECK(
        length + row.max_tokens <= config.max_positions,
        "a prompt of {} tokens with max_tokens = {} (the model has {} positions). Shorten one of them.",
        length, row.max_tokens, config.max_positions);
  }
}

/// One batch of rows being continued.
class Generation {
 public:
  Generation(CausalLM& model, std::vector<GenerateRow> const& rows, GenerateOptions const& options)
      : model_(model),
        rows_(rows),
        options_(options),
        answers_(rows.size()),
        cache_(model.config().num_layers, static_cast<int64_t>(rows.size())) {}

  std::vector<std::vector<int32_t>> run() {
    std::vector<std::vector<int32_t>> feed;
    for (auto const& row : rows_) feed.push_back(row.prompt);
    alive_.resize(rows_.size());
    std::iota(alive_.begin(), alive_.end(), size_t{0});
    retire([&](size_t row) { return rows_[row].max_tokens > 0; }, feed);
    while (!alive_.empty()) step(feed);
    return std::move(answers_);
  }

 private:
  /// Feeds the new tokens of the rows that go on, appends one token to each, and leaves it in `feed`.
  void step(std::vector<std::vector<int32_t>>& feed) {
    restart_rows(feed);
    auto const input = ragged(feed);
    auto const pass = model_.pass(input, {}, &cache_);
    auto const hidden = model_.hidden_states(input.ids, pass);
    pass.advance_cache();
    std::vector<int64_t> last;
    for (size_t i = 1; i < input.offsets.size(); ++i) last.push_back(input.offsets[i] - 1);
    auto const logits =
        model_.logits(hidden.index_select(0, at::tensor(last, at::kLong).to(hidden.device())));
    auto const [largest, best_on_device] = at::max(logits, -1);
    // A maximum is not a number where any logit is not.
    if (!at::isfinite(largest).all().item<bool>()) check_finite_weights(model_);
    auto const best = best_on_device.to(at::kCPU);
    for (size_t i = 0; i < alive_.size(); ++i) {
      auto const& row = rows_[alive_[i]];
      auto const index = static_cast<int64_t>(i);
      feed[i] = {row.temperature > 0 ? sample(logits[index], row, answers_[alive_[i]].size())
                                     : static_cast<int32_t>(best[index].item<int64_t>())};
    }
    accept(feed);
  }

  /// Feeds a row from its begin again where the new tokens change how its cached ones are turned.
  void restart_rows(std::vector<std::vector<int32_t>>& feed) {
    for (size_t i = 0; i < alive_.size(); ++i) {
      auto const past = cache_.past(static_cast<int64_t>(i));
      if (!model_.config().rope_changes(past, past + static_cast<int64_t>(feed[i].size()))) continue;
      cache_.restart(static_cast<int64_t>(i));
      auto const& answer = answers_[alive_[i]];
      feed[i] = rows_[alive_[i]].prompt;
      feed[i].insert(feed[i].end(), answer.begin(), answer.end());
    }
  }

  void accept(std::vector<std::vector<int32_t>>& feed) {
    std::vector<bool> goes_on(rows_.size());
    for (size_t i = 0; i < alive_.size(); ++i) {
      auto const row = alive_[i];
      auto const id = feed[i].front();
      auto const& stops = options_.stop_ids;
      if (std::find(stops.begin(), stops.end(), id) != stops.end()) continue;
      answers_[row].push_back(id);
      bool const stopped = options_.stop && options_.stop(static_cast<int64_t>(row), answers_[row]);
      goes_on[row] = !stopped && static_cast<int64_t>(answers_[row].size()) < rows_[row].max_tokens;
    }
    retire([&](size_t row) { return goes_on[row]; }, feed);
  }

  template <class Predicate>
  void retire(Predicate const& goes_on, std::vector<std::vector<int32_t>>& feed) {
    std::vector<int64_t> kept;
    std::vector<size_t> alive;
    std::vector<std::vector<int32_t>> next;
    for (size_t i = 0; i < alive_.size(); ++i) {
      if (!goes_on(alive_[i])) continue;
      kept.push_back(static_cast<int64_t>(i));
      alive.push_back(alive_[i]);
      next.push_back(std::move(feed[i]));
    }
    if (alive.size() != alive_.size()) cache_.keep(kept);
    alive_ = std::move(alive);
    feed = std::move(next);
  }

  CausalLM& model_;
  std::vector<GenerateRow> const& rows_;
  GenerateOptions const& options_;
  std::vector<std::vector<int32_t>> answers_;
  KvCache cache_;
  std::vector<size_t> alive_;
};

}  // namespace

std::vector<std::vector<int32_t>> generate(CausalLM& model, std::vector<GenerateRow> const& rows,
                                           GenerateOptions const& options) {
  check_rows(model.config(), rows);
  at::NoGradGuard const no_grad;
  return Generation(model, rows, options).run();
}

}  // namespace fsllm
