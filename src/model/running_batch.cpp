// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/running_batch.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/max.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/model/finite.hpp"
#include "sampling.hpp"

namespace fsllm {
namespace {

/// Beginnings shorter than this are computed again: copying them would save nothing.
constexpr int64_t kShortestBeginning = 16;
/// Places of a prompt whose logits are held at once.
constexpr int64_t kPlacesAtOnce = 64;

int64_t common_length(std::vector<int32_t> const& a, std::vector<int32_t> const& b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
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

/// The tokens of `ids` from the second on, given what the model says at each place, hidden [length, size].
std::vector<TokenLogprobs> prompt_logprobs(CausalLM& model, Pass const& pass, at::Tensor const& hidden,
                                           std::vector<int32_t> const& ids, int64_t top) {
  std::vector<TokenLogprobs> result;
  int64_t const count = std::ssize(ids) - 1;
  for (int64_t begin = 0; begin < count; begin += kPlacesAtOnce) {
    int64_t const places = std::min(kPlacesAtOnce, count - begin);
    auto const logits = model.logits(hidden.narrow(0, begin, places), pass);
    for (int64_t i = 0; i < places; ++i)
      result.push_back(
          detail::logprobs_of(logits[i], ids[static_cast<size_t>(begin + i + 1)], std::max<int64_t>(0, top)));
  }
  return result;
}

}  // namespace

RunningBatch::RunningBatch(CausalLM& model, RunningBatchOptions options)
    : model_(model),
      options_(std::move(options)),
      cache_(model.config().num_layers, 0),
      last_cache_(model.config().num_layers, 0) {}

int64_t RunningBatch::join(GenerateRow row) {
  detail::check_row(model_.config(), row);
  auto ids = row.prompt;
  waiting_.push_back({next_number_, std::move(row), std::move(ids)});
  return next_number_++;
}

void RunningBatch::leave(int64_t row) {
  std::erase_if(waiting_, [&](Row const& one) { return one.number == row; });
  std::vector<bool> ended;
  for (auto const& one : alive_) ended.push_back(one.number == row);
  retire(ended);
}

std::vector<NewTokenEvent> RunningBatch::step() {
  at::NoGradGuard const no_grad;
  auto events = end_empty_rows();
  admit();
  if (alive_.empty()) return events;
  restart_turned_rows();
  for (auto& event : forward()) events.push_back(std::move(event));
  return events;
}

/// Rows of which nothing is wanted need no pass.
std::vector<NewTokenEvent> RunningBatch::end_empty_rows() {
  std::vector<NewTokenEvent> events;
  auto const empty = [](Row const& row) { return row.given.max_tokens == 0 && !row.given.prompt_logprobs; };
  for (auto const& row : waiting_)
    if (empty(row)) events.push_back({.row = row.number, .end = NewTokenEvent::End::length});
  std::erase_if(waiting_, empty);
  return events;
}

void RunningBatch::admit() {
  auto const admitted_from = alive_.size();
  int64_t tokens = 0;
  while (!waiting_.empty() && std::ssize(alive_) < options_.most_rows) {
    auto& row = waiting_.front();
    auto const beginning = longest_beginning(row);
    if (comes_after_its_like(row, admitted_from, beginning.tokens)) return;
    tokens += std::ssize(row.ids) - beginning.tokens;
    if (alive_.size() > admitted_from && tokens > options_.most_tokens) return;
    if (beginning.tokens > 0) {
      cache_.add_row(*beginning.cache, beginning.row, beginning.tokens + beginning.virtual_tokens);
      row.fed = beginning.tokens;
    } else {
      cache_.add_row();
    }
    alive_.push_back(std::move(row));
    waiting_.pop_front();
  }
}

/// Whether a row admitted for this very pass computes much of what this one begins with: it can be had of it
/// for the next pass.
bool RunningBatch::comes_after_its_like(Row const& row, size_t admitted_from, int64_t cached) const {
  if (row.given.prompt_logprobs) return false;
  return std::any_of(
      alive_.begin() + static_cast<std::ptrdiff_t>(admitted_from), alive_.end(), [&](Row const& other) {
        auto const common = std::min(common_length(row.ids, other.ids), std::ssize(row.ids) - 1);
        return common >= cached + kShortestBeginning && 2 * common >= std::ssize(row.ids) - cached;
      });
}

RunningBatch::Beginning RunningBatch::longest_beginning(Row const& row) const {
  Beginning best;
  if (row.given.prompt_logprobs) return best;  // which needs what the model says at every place
  auto const look_at = [&](Row const& other, KvCache const& cache, int64_t index) {
    auto const common = std::min({common_length(row.ids, other.ids), other.fed, std::ssize(row.ids) - 1});
    auto const past = cache.past(index);
    if (common < kShortestBeginning || common <= best.tokens) return;
    if (model_.config().rope_changes(past - other.fed + common, past)) return;
    best = {common, &cache, index, past - other.fed};
  };
  for (size_t i = 0; i < alive_.size(); ++i) look_at(alive_[i], cache_, static_cast<int64_t>(i));
  if (last_) look_at(*last_, last_cache_, 0);
  return best;
}

/// Feeds a row from its begin again where new tokens change how its cached ones are turned.
void RunningBatch::restart_turned_rows() {
  for (size_t i = 0; i < alive_.size(); ++i) {
    auto const index = static_cast<int64_t>(i);
    auto const past = cache_.past(index), length = past + std::ssize(alive_[i].ids) - alive_[i].fed;
    if (!model_.config().rope_changes(past, length)) continue;
    cache_.restart(index);
    alive_[i].fed = 0;
  }
}

std::vector<NewTokenEvent> RunningBatch::forward() {
  std::vector<std::vector<int32_t>> feed;
  for (auto const& row : alive_) feed.emplace_back(row.ids.begin() + row.fed, row.ids.end());
  auto const input = ragged(feed);
  auto const pass = model_.pass(input, {}, &cache_);
  auto const hidden = model_.hidden_states(input.ids, pass);
  pass.advance_cache();
  tokens_fed_ += input.offsets.back();
  std::vector<int64_t> last;
  for (size_t i = 1; i < input.offsets.size(); ++i) last.push_back(input.offsets[i] - 1);
  auto const logits =
      model_.logits(at::index_select(hidden, 0, at::tensor(last, at::kLong).to(hidden.device())), pass);
  auto const [largest, best_on_device] = at::max(logits, -1);
  // A maximum is not a number where any logit is not.
  if (!at::isfinite(largest).all().item<bool>()) check_finite_weights(model_);
  auto const best = best_on_device.to(at::kCPU);
  std::vector<NewTokenEvent> events;
  std::vector<bool> ended;
  for (size_t i = 0; i < alive_.size(); ++i) {
    auto& row = alive_[i];
    auto const index = static_cast<int64_t>(i);
    std::vector<TokenLogprobs> prompt;
    if (row.given.prompt_logprobs && row.new_tokens() == 0 && row.fed == 0)
      prompt = prompt_logprobs(model_, pass, hidden.narrow(0, input.offsets[i], std::ssize(feed[i])), row.ids,
                               row.given.top_logprobs);
    row.fed = std::ssize(row.ids);
    events.push_back(extend(row, logits[index], best.const_data_ptr<int64_t>()[i]));
    events.back().prompt = std::move(prompt);
    ended.push_back(events.back().end != NewTokenEvent::End::no);
  }
  retire(ended);
  return events;
}

NewTokenEvent RunningBatch::extend(Row& row, at::Tensor const& logits, int64_t best) const {
  using End = NewTokenEvent::End;
  NewTokenEvent event{.row = row.number};
  event.end = End::length;
  if (row.new_tokens() >= row.given.max_tokens) return event;
  auto const id = detail::is_plainly_greedy(row.given)
                      ? static_cast<int32_t>(best)
                      : detail::next_token(logits, row.given, row.ids, row.new_tokens());
  event.end = End::stop_id;
  if (std::ranges::find(options_.stop_ids, id) != options_.stop_ids.end()) return event;
  event.token = id;
  if (row.given.top_logprobs >= 0) event.logprobs = detail::logprobs_of(logits, id, row.given.top_logprobs);
  row.ids.push_back(id);
  event.end = row.new_tokens() < row.given.max_tokens ? End::no : End::length;
  return event;
}

void RunningBatch::retire(std::vector<bool> const& ended) {
  std::vector<int64_t> kept;
  std::vector<Row> alive;
  for (size_t i = 0; i < alive_.size(); ++i) {
    auto const index = static_cast<int64_t>(i);
    if (!ended[i]) {
      kept.push_back(index);
      alive.push_back(std::move(alive_[i]));
      continue;
    }
    last_cache_ = KvCache(model_.config().num_layers, 0);
    last_cache_.add_row(cache_, index, cache_.past(index));
    last_ = std::move(alive_[i]);
  }
  if (kept.size() != alive_.size()) cache_.keep(kept);
  alive_ = std::move(alive);
}

}  // namespace fsllm
