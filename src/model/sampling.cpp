// SPDX-License-Identifier: Apache-2.0
#include "sampling.hpp"

#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm::detail {
namespace {

constexpr double kLeft = -std::numeric_limits<double>::infinity();

void penalize(std::span<double> logits, std::vector<int32_t> ids, double penalty) {
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (auto const id : ids) {
    auto& logit = logits[static_cast<size_t>(id)];
    logit = logit < 0 ? logit * penalty : logit / penalty;
  }
}

/// Token ids by falling value, equal ones by number; the first `count` of them.
std::vector<int32_t> best_tokens(std::span<double const> values, int64_t count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  auto const kept = std::min<int64_t>(count, std::ssize(order));
  std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int32_t a, int32_t b) {
    auto const x = values[static_cast<size_t>(a)], y = values[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  order.resize(static_cast<size_t>(kept));
  return order;
}

/// Logits beyond the k best become -∞.
void keep_top_k(std::span<double> logits, int64_t k) {
  if (k <= 0 || k >= std::ssize(logits)) return;
  auto const least = logits[static_cast<size_t>(best_tokens(logits, k).back())];
  for (auto& logit : logits)
    if (logit < least) logit = kLeft;
}

/// exp(logits − largest), 0 where -∞.
std::vector<double> relative_probabilities(std::span<double const> logits) {
  auto const largest = *std::ranges::max_element(logits);
  std::vector<double> probabilities(logits.size());
  std::ranges::transform(logits, probabilities.begin(), [&](double x) { return std::exp(x - largest); });
  return probabilities;
}

/// Probabilities beyond the fewest best ones that together reach top_p become 0.
void keep_top_p(std::vector<double>& probabilities, double top_p) {
  if (top_p >= 1) return;
  double const all = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
  double reached = 0;
  std::vector<double> kept(probabilities.size(), 0.0);
  for (auto const id : best_tokens(probabilities, std::ssize(probabilities))) {
    auto const index = static_cast<size_t>(id);
    kept[index] = probabilities[index];
    reached += probabilities[index];
    if (reached >= top_p * all) break;
  }
  probabilities = std::move(kept);
}

/// Inverse of the cumulative distribution at a uniform number.
int32_t draw(std::vector<double> const& probabilities, GenerateRow const& row, int64_t step) {
  double const all = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
  double left = all * Philox(row.seed, Purpose::generation, 0, 0, static_cast<uint64_t>(step)).uniform();
  int32_t last = 0;
  for (size_t id = 0; id < probabilities.size(); ++id) {
    if (probabilities[id] == 0) continue;
    last = static_cast<int32_t>(id);
    left -= probabilities[id];
    if (left < 0) break;
  }
  return last;
}

std::vector<double> on_host(at::Tensor const& values) {
  auto const host = values.to(at::kCPU, at::kDouble).contiguous();
  return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

}  // namespace

int32_t next_token(at::Tensor const& logits, GenerateRow const& row, std::vector<int32_t> const& ids,
                   int64_t step) {
  auto values = on_host(logits);
  if (row.repetition_penalty != 1) penalize(values, ids, row.repetition_penalty);
  if (row.temperature == 0) return best_tokens(values, 1).front();
  for (auto& value : values) value /= row.temperature;
  keep_top_k(values, row.top_k);
  auto probabilities = relative_probabilities(values);
  keep_top_p(probabilities, row.top_p);
  return draw(probabilities, row, step);
}

TokenLogprobs logprobs_of(at::Tensor const& logits, int32_t id, int64_t top) {
  auto const values =
      on_host(at::log_softmax(logits.to(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat), -1));
  TokenLogprobs result{values[static_cast<size_t>(id)], {}};
  for (auto const best : best_tokens(values, top))
    result.top.emplace_back(best, values[static_cast<size_t>(best)]);
  return result;
}

void check_row(ModelConfig const& config, GenerateRow const& row) {
  FSLLM_CHECK(!row.prompt.empty(), "an empty prompt (generation needs a token to start from). Give BOS.");
  FSLLM_CHECK(row.temperature >= 0, "temperature = {} (0 is greedy, above 0 samples). Raise it to 0.",
              row.temperature);
  FSLLM_CHECK(row.top_k >= 0, "top_k = {} (0 is all tokens, above 0 that many). Raise it to 0.", row.top_k);
  FSLLM_CHECK(row.top_p > 0 && row.top_p <= 1, "top_p = {} (a probability in (0, 1]). Use 1 for all tokens.",
              row.top_p);
  FSLLM_CHECK(row.repetition_penalty > 0 && std::isfinite(row.repetition_penalty),
              "repetition_penalty = {} (must be above 0; 1 is none). Use 1.", row.repetition_penalty);
  FSLLM_CHECK(row.num_beams >= 1, "num_beams = {} (1 is no search, above 1 that many beams). Use 1.",
              row.num_beams);
  FSLLM_CHECK(
      row.num_beams == 1 || is_plainly_greedy(row),
      "num_beams = {} with a temperature or a repetition penalty (beams are ordered by the model's own "
      "probabilities). Leave these out.",
      row.num_beams);
  FSLLM_CHECK(std::isfinite(row.length_penalty), "length_penalty = {} (must be finite). Use 1.",
              row.length_penalty);
  auto const length = static_cast<int64_t>(row.prompt.size());
  FSLLM_CHECK(length + row.max_tokens <= config.max_positions,
              "a prompt of {} tokens with max_tokens = {} (the model has {} positions). Shorten one of them.",
              length, row.max_tokens, config.max_positions);
}

}  // namespace fsllm::detail
