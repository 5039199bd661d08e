// SPDX-License-Identifier: Apache-2.0
// How a pass is made.
#include "fsllm/model/pass.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <functional>
#include <set>

#include "decoder.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "pass_plan.hpp"

namespace fsllm {

std::span<PassSegment const> Pass::segments() const {
  return plan_ ? std::span<PassSegment const>(plan_->segments) : std::span<PassSegment const>();
}

Pass Pass::at(at::Tensor const& index) const {
  if (!training()) return *this;
  auto const chosen = [&](at::Tensor const& numbers) { return numbers.index_select(0, index); };
  return {plan_, {chosen(tokens_.seed), chosen(tokens_.row), chosen(tokens_.place), {}}};
}

Pass Pass::with_virtual_tokens() const {
  return {plan_, plan_->tokens};
}

bool Pass::has_cache() const {
  return plan_ != nullptr && plan_->attention.has_cache();
}

void Pass::advance_cache() const {
  plan_->attention.advance_cache();
}

namespace detail {
namespace {

/// Seeds and numbers of all rows, int64 [rows].
DropoutLines lines_of_rows(std::vector<PassSegment> const& segments, c10::Device device) {
  std::vector<int64_t> seeds, rows;
  for (auto const& [count, key, first_row, slot, tokens] : segments) {
    auto const seed = derive_seed(key.seed, Purpose::dropout, static_cast<uint64_t>(key.client),
                                  static_cast<uint64_t>(key.round), static_cast<uint64_t>(key.step));
    seeds.insert(seeds.end(), static_cast<size_t>(count), static_cast<int64_t>(seed));
    for (int64_t row = 0; row < count; ++row) rows.push_back(first_row + row);
  }
  return {at::tensor(seeds, at::kLong).to(device), at::tensor(rows, at::kLong).to(device), {}, {}};
}

/// The learned tokens are no part of any row: all rows of the step see the same.
Pass pass_of_virtual_tokens(DropoutLines const& rows, int64_t count) {
  if (!rows.seed.defined()) return {};
  auto const places = at::arange(count, rows.seed.options());
  return Pass({rows.seed.narrow(0, 0, 1).expand({count}), at::zeros_like(places), places, {}});
}

std::vector<PassSegment> with_tokens(std::vector<PassSegment> segments, std::vector<int64_t> const& offsets) {
  size_t row = 0;
  for (auto& segment : segments) {
    auto const end = row + static_cast<size_t>(segment.rows);
    segment.tokens = offsets[end] - offsets[row];
    row = end;
  }
  return segments;
}

void check_segments(PassOptions const& options, int64_t rows, KvCache const* cache) {
  if (options.shared_prefix && (cache != nullptr || !options.segments.empty() || rows < 2))
    fail_internal(__FILE__, __LINE__, "a shared prefix of rows in training, with a cache, or of none");
  if (options.segments.empty()) return;
  int64_t known = 0;
  for (auto const& segment : options.segments) known += segment.rows;
  if (known != rows || cache != nullptr)
    fail_internal(__FILE__, __LINE__, "segments that are not the rows, or training with a cache");
}

}  // namespace

Pass Decoder::pass(RaggedInput const& input, PassOptions const& options, KvCache* cache) const {
  check_input(input);
  check_cache(input, cache);
  check_segments(options, input.num_rows(), cache);
  auto const lines = options.segments.empty() ? DropoutLines() : lines_of_rows(options.segments, device_);
  int64_t const taken = virtual_tokens_ ? virtual_tokens_->count() : 0;
  VirtualRows const rows(virtual_tokens_.get(), input, cache, pass_of_virtual_tokens(lines, taken), compute_);
  auto const plan = std::make_shared<PassPlan>(
      PassPlan{.rows = rows,
               .attention = AttentionPlan(rows, options, cache, lines, score_rule_, windows(), device_),
               .segments = with_tokens(options.segments, input.offsets),
               .shared_prefix = options.shared_prefix});
  int64_t const end = plan->attention.end_position() - taken;
  FSLLM_CHECK(config_.position != PositionKind::learned || end <= config_.max_positions,
              "a row of {} tokens (the model has {} positions{}). Shorten the rows (llm.tok_len).", end,
              config_.max_positions, taken == 0 ? "" : fmt::format(" beside {} virtual tokens", taken));
  if (config_.position == PositionKind::rope) std::tie(plan->cos, plan->sin) = angles(plan->attention);
  if (!lines.seed.defined()) return {plan, {}};
  auto const& all = plan->tokens = plan->attention.token_lines();
  return {plan, {rows.remove(all.seed), rows.remove(all.row), rows.remove(all.place), {}}};
}

std::pair<at::Tensor, at::Tensor> Decoder::angles(AttentionPlan const& plan) const {
  auto const [cos, sin] = rope_->rows(plan.positions(), plan.end_position());
  if (!long_rope_ || plan.end_position() <= config_.rope_original_positions) return {cos, sin};
  auto const [long_cos, long_sin] = long_rope_->rows(plan.positions(), plan.end_position());
  auto const is_long = plan.row_ends().gt(config_.rope_original_positions).view({-1, 1, 1});
  return {at::where(is_long, long_cos, cos), at::where(is_long, long_sin, sin)};
}

/// Every window that a layer has, once.
std::vector<int64_t> Decoder::windows() const {
  std::set<int64_t> found;
  for (size_t layer = 0; layer < blocks_.size(); ++layer) found.insert(config_.window_of(layer));
  return {found.begin(), found.end()};
}

void Decoder::check_input(RaggedInput const& input) const {
  auto const& offsets = input.offsets;
  bool const rows_fit =
      input.num_rows() > 0 && input.ids.numel() == offsets.back() &&
      std::adjacent_find(offsets.begin(), offsets.end(), std::greater_equal<>()) == offsets.end();
  FSLLM_CHECK(rows_fit, "a batch of {} tokens in {} rows (every row needs a token). Correct the rows.",
              input.ids.numel(), input.num_rows());
  if (!input.ids.is_cpu()) return;
  auto const least = input.ids.min().item<int64_t>(), most = input.ids.max().item<int64_t>();
  FSLLM_CHECK(least >= 0 && most < config_.vocab_size,
              "token id {} (the model's vocabulary has {} tokens). Use the tokenizer of this model.",
              least < 0 ? least : most, config_.vocab_size);
}

void Decoder::check_cache(RaggedInput const& input, KvCache const* cache) const {
  for (int64_t row = 0; cache != nullptr && row < input.num_rows(); ++row) {
    auto const length = input.offsets[static_cast<size_t>(row) + 1] - input.offsets[static_cast<size_t>(row)];
    FSLLM_CHECK(!config_.rope_changes(cache->past(row), cache->past(row) + length),
                "{} cached tokens and {} more (LongRoPE turns all tokens anew beyond {}). Restart the row.",
                cache->past(row), length, config_.rope_original_positions);
  }
}

}  // namespace detail
}  // namespace fsllm
