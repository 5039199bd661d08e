// SPDX-License-Identifier: Apache-2.0
#include "attention.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/split_with_sizes.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/tensor.h>
#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "fsllm/model/dropout.hpp"
#include "functions.hpp"
#include "stored_type.hpp"

namespace fsllm::detail {
namespace {

/// Attention with capped scores or dropped weights, which no fused kernel has. q [B, heads, L, D], k and v
/// [B, kv_heads, S, D], mask none or as in AttentionPlan::make_mask, `kept` [B, heads, L, S] or undefined.
at::Tensor explicit_attention(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v,
                              std::optional<at::Tensor> const& mask, ScoreRule const& rule,
                              at::Tensor const& kept) {
  auto const shared = q.size(1) / k.size(1);
  auto const keys = shared == 1 ? k : at::repeat_interleave(k, shared, 1);
  auto const values = shared == 1 ? v : at::repeat_interleave(v, shared, 1);
  bool const half = q.scalar_type() == at::kHalf;  // whose largest number unscaled scores may pass
  auto const transposed = keys.transpose(-1, -2);
  auto scores = half ? at::matmul(q.mul(rule.scale), transposed) : at::matmul(q, transposed).mul_(rule.scale);
  if (rule.softcap > 0) scores = soft_cap(scores, rule.softcap);
  if (mask)
    scores = mask->scalar_type() == at::kBool
                 ? scores.masked_fill(mask->logical_not(), -std::numeric_limits<double>::infinity())
                 : at::add(scores, *mask);
  auto weights = at::softmax(scores, -1);
  if (kept.defined()) weights = at::mul(weights, kept).div(1 - rule.dropout);
  return at::matmul(weights, values);
}

}  // namespace

AttentionPlan::AttentionPlan(VirtualRows const& virtual_rows, PassOptions const& options, KvCache* cache,
                             DropoutLines lines, ScoreRule rule, std::vector<int64_t> const& windows,
                             c10::Device device)
    : keys_values_(virtual_rows.keys_values()),
      cache_(cache),
      lines_(std::move(lines)),
      rule_(std::move(rule)),
      device_(device) {
  std::vector<at::Tensor> positions;
  auto const& offsets = virtual_rows.offsets();
  if (options.shared_prefix) shared_ = offsets[1];
  for (size_t index = 0; index + 1 < offsets.size(); ++index) {
    auto const row = static_cast<int64_t>(index);
    int64_t const length = offsets[index + 1] - offsets[index];
    int64_t const seen = cache != nullptr ? cache->past(row) : 0;
    int64_t const learned = seen == 0 && keys_values_.defined() ? keys_values_.size(0) : 0;
    int64_t const prefix = row > 0 && shared_ > 0 ? shared_ : learned;
    int64_t const past = seen + prefix;
    positions.push_back(at::arange(past, past + length, at::kLong));
    lengths_.push_back(length);
    ends_.push_back(past + length);
    bool const joins =
        cache == nullptr && !runs_.empty() && runs_.back().length == length && runs_.back().prefix == prefix;
    if (joins) {
      ++runs_.back().rows;
    } else {
      runs_.push_back({row, 1, length, past, prefix});
    }
  }
  end_position_ = *std::max_element(ends_.begin(), ends_.end());
  if (options.packing == Packing::pad && cache == nullptr && runs_.size() > 1) pad_rows();
  for (auto const& run : runs_) split_sizes_.push_back(run.tokens());
  positions_ = at::cat(positions).to(device);
  make_masks(windows);
}

/// Makes one run of all rows. No token looks at a later one, so what fills a row up is seen by none that
/// counts.
void AttentionPlan::pad_rows() {
  auto const rows = static_cast<int64_t>(lengths_.size());
  int64_t const longest = *std::max_element(lengths_.begin(), lengths_.end());
  std::vector<int64_t> to, from;
  int64_t first = 0;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t const length = lengths_[static_cast<size_t>(row)];
    for (int64_t place = 0; place < longest; ++place) to.push_back(first + std::min(place, length - 1));
    for (int64_t place = 0; place < length; ++place) from.push_back(row * longest + place);
    first += length;
  }
  to_padded_ = at::tensor(to, at::kLong).to(device_);
  from_padded_ = at::tensor(from, at::kLong).to(device_);
  runs_ = {{0, rows, longest, runs_.front().past, runs_.front().prefix}};
}

at::Tensor AttentionPlan::attend(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, int64_t layer,
                                 int64_t window) const {
  if (is_causal(q)) return attend_causal(q, k, v, layer, window);
  if (runs_.size() == 1 && cache_ == nullptr) {
    auto const& run = runs_.front();
    auto const mixed = attend_run(padded(q), before(run, padded(k), in_front(k, 2 * layer)),
                                  before(run, padded(v), in_front(v, 2 * layer + 1)), run, layer, window);
    return from_padded_.defined() ? mixed.index_select(0, from_padded_) : mixed;
  }
  if (decodes_on_host(q)) return decode(q, k, v, layer, window);
  auto const queries = at::split_with_sizes(q, split_sizes_, 0);
  auto const keys = at::split_with_sizes(k, split_sizes_, 0);
  auto const values = at::split_with_sizes(v, split_sizes_, 0);
  auto const front_keys = in_front(k, 2 * layer), front_values = in_front(v, 2 * layer + 1);
  std::vector<at::Tensor> parts;
  parts.reserve(runs_.size());
  for (size_t i = 0; i < runs_.size(); ++i) {
    auto key = before(runs_[i], keys[i], front_keys), value = before(runs_[i], values[i], front_values);
    if (cache_ != nullptr) std::tie(key, value) = cache_->append(layer, runs_[i].first_row, key, value);
    parts.push_back(attend_run(queries[i], key, value, runs_[i], layer, window));
  }
  return at::cat(parts);
}

bool AttentionPlan::is_causal(at::Tensor const& q) const {
  return cache_ == nullptr && rule_.softcap == 0 && !drops() && have_kernels(q);
}

CausalRule AttentionPlan::causal_rule(size_t first_row, int64_t past, int64_t window) const {
  CausalRule rule{{0}, past, window, rule_.scale, {}};
  if (rule_.slopes.defined()) rule.slopes = rule_.slopes.flatten().to(at::kFloat).contiguous();
  for (size_t row = first_row; row < lengths_.size(); ++row)
    rule.firsts.push_back(rule.firsts.back() + lengths_[row]);
  return rule;
}

at::Tensor AttentionPlan::attend_causal(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v,
                                        int64_t layer, int64_t window) const {
  auto const keys = in_front(k, 2 * layer), values = in_front(v, 2 * layer + 1);
  if (!keys.defined()) return causal_attention(q, k, v, causal_rule(0, 0, window));
  if (shared_ == 0)
    return causal_attention(q, behind(keys, k, 0), behind(values, v, 0),
                            causal_rule(0, keys.size(0), window));
  auto first = causal_rule(0, 0, window);
  first.firsts.resize(2);
  auto const others = [&](at::Tensor const& x) { return x.narrow(0, shared_, x.size(0) - shared_); };
  return at::cat({causal_attention(q.narrow(0, 0, shared_), keys, values, first),
                  causal_attention(others(q), behind(keys, others(k), 1), behind(values, others(v), 1),
                                   causal_rule(1, shared_, window))});
}

at::Tensor AttentionPlan::in_front(at::Tensor const& all, int64_t index) const {
  if (shared_ > 0) return all.narrow(0, 0, shared_);
  return keys_values_.defined() ? keys_values_.select(1, index) : at::Tensor();
}

at::Tensor AttentionPlan::behind(at::Tensor const& front, at::Tensor const& own, size_t first_row) const {
  std::vector<at::Tensor> parts;
  int64_t first = 0;
  for (size_t row = first_row; row < lengths_.size(); ++row) {
    parts.push_back(front);
    parts.push_back(own.narrow(0, first, lengths_[row]));
    first += lengths_[row];
  }
  return at::cat(parts);
}

bool AttentionPlan::decodes_on_host(at::Tensor const& q) const {
  return cache_ != nullptr && q.is_cpu() && q.scalar_type() == at::kFloat && cpu_kernels() != nullptr &&
         std::ranges::all_of(runs_, [](Run const& run) { return run.length == 1 && run.prefix == 0; });
}

at::Tensor AttentionPlan::decode(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, int64_t layer,
                                 int64_t window) const {
  auto const queries = q.contiguous();
  int64_t const heads = q.size(1), kv_heads = k.size(1), dim = q.size(2);
  auto const cached = cache_->append_to_each(layer, k, v);
  auto const slopes = rule_.slopes.defined() ? rule_.slopes.contiguous() : at::Tensor();
  auto out = at::empty({q.size(0), heads * dim}, q.options());
  auto* const to = out.mutable_data_ptr<float>();
  auto const* const from = queries.const_data_ptr<float>();
  at::parallel_for(0, q.size(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> weights;
    for (int64_t row = begin; row < end; ++row) {
      auto const& seen = cached[static_cast<size_t>(row)];
      int64_t const first = window > 0 ? std::max<int64_t>(0, seen.tokens - window) : 0;
      weights.resize(static_cast<size_t>(seen.tokens));
      cpu_kernels()->one_query({.q = from + row * heads * dim,
                                .keys = static_cast<float const*>(seen.keys) + first * kv_heads * dim,
                                .values = static_cast<float const*>(seen.values) + first * kv_heads * dim,
                                .tokens = seen.tokens - first,
                                .heads = heads,
                                .kv_heads = kv_heads,
                                .dim = dim,
                                .scale = static_cast<float>(rule_.scale),
                                .softcap = static_cast<float>(rule_.softcap),
                                .slopes = slopes.defined() ? slopes.const_data_ptr<float>() : nullptr,
                                .weights = weights.data(),
                                .out = to + row * heads * dim});
    }
  });
  return out;
}

at::Tensor AttentionPlan::before(Run const& run, at::Tensor const& own, at::Tensor const& front) const {
  if (run.prefix == 0) return own;
  auto const heads = own.size(1), dim = own.size(2);
  auto const of_rows = front.unsqueeze(0).expand({run.rows, -1, heads, dim});
  return at::cat({of_rows, own.view({run.rows, run.length, heads, dim})}, 1).flatten(0, 1);
}

at::Tensor AttentionPlan::row_ends() const {
  auto const of_rows = at::tensor(ends_, at::kLong);
  return at::repeat_interleave(of_rows, at::tensor(lengths_, at::kLong)).to(device_);
}

DropoutLines AttentionPlan::token_lines() const {
  auto const lengths = at::tensor(lengths_, at::kLong).to(device_);
  auto const of_tokens = [&](at::Tensor const& of_rows) {  // a known size is nothing to wait for
    return at::repeat_interleave(of_rows, lengths, 0, positions_.numel());
  };
  return {of_tokens(lines_.seed), of_tokens(lines_.row), positions_, {}};
}

void AttentionPlan::advance_cache() const {
  if (cache_ == nullptr) return;
  for (auto const& run : runs_) cache_->advance(run.first_row, run.prefix + run.length);
}

at::Tensor AttentionPlan::attend_run(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v,
                                     Run const& run, int64_t layer, int64_t window) const {
  int64_t const seen = run.past + run.length;
  if (cache_ != nullptr && run.length == 1) {
    int64_t const first = window > 0 ? std::max<int64_t>(0, seen - window) : 0;
    return attend_one(q, k.narrow(0, first, seen - first), v.narrow(0, first, seen - first));
  }
  auto const batched = [&](at::Tensor const& x, int64_t length) {  // [rows, heads, length, D]
    return x.view({run.rows, length, x.size(1), x.size(2)}).transpose(1, 2);
  };
  bool const plain = is_plain(run, window);
  std::optional<at::Tensor> mask;
  if (!plain) mask = masks_.at({run.length, run.past, window});
  auto const out = weigh(batched(q, run.length), batched(k, seen), batched(v, seen), mask,
                         kept_weights(run, q.size(1), layer), /*causal=*/plain);
  return out.transpose(1, 2).reshape({run.tokens(), q.size(1) * q.size(2)});
}

/// One query token against S keys: the heads that share a key head become the query "tokens" of that head, so
/// grouped keys need no copies. q [1, heads, D], k and v [S, kv_heads, D] → [1, heads·D].
at::Tensor AttentionPlan::attend_one(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v) const {
  auto const heads = q.size(1), kv_heads = k.size(1), dim = q.size(2);
  std::optional<at::Tensor> bias;  // [1, kv_heads, heads / kv_heads, S]
  if (rule_.slopes.defined())
    bias = at::mul(rule_.slopes, at::arange(1 - k.size(0), 1, rule_.slopes.options()))
               .view({1, kv_heads, heads / kv_heads, k.size(0)});
  auto const grouped = q.reshape({1, kv_heads, heads / kv_heads, dim});
  auto const out =
      weigh(grouped, k.transpose(0, 1).unsqueeze(0), v.transpose(0, 1).unsqueeze(0), bias, {}, false);
  return out.reshape({1, heads * dim});
}

at::Tensor AttentionPlan::weigh(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v,
                                std::optional<at::Tensor> const& mask, at::Tensor const& kept,
                                bool causal) const {
  if (rule_.softcap > 0 || kept.defined()) return explicit_attention(q, k, v, mask, rule_, kept);
  return at::scaled_dot_product_attention(q, k, v, mask, /*dropout_p=*/0.0, causal, rule_.scale,
                                          /*enable_gqa=*/q.size(1) != k.size(1));
}

at::Tensor AttentionPlan::kept_weights(Run const& run, int64_t heads, int64_t layer) const {
  if (!drops()) return {};
  auto const of_rows = [&](at::Tensor const& x) {
    return x.narrow(0, run.first_row, run.rows).view({-1, 1, 1});
  };
  auto const options = lines_.row.options();
  return keep_mask({.seed = of_rows(lines_.seed),
                    .row = of_rows(lines_.row),
                    .place = at::arange(run.past, run.past + run.length, options),
                    .head = at::arange(heads, options).view({-1, 1})},
                   run.past + run.length, rule_.dropout, fmt::format("attention weights of layer {}", layer));
}

bool AttentionPlan::is_plain(Run const& run, int64_t window) const {
  return run.past == 0 && (window == 0 || window >= run.length) && rule_.softcap == 0 &&
         !rule_.slopes.defined() && !drops();
}

void AttentionPlan::make_masks(std::vector<int64_t> const& windows) {
  for (auto const& run : runs_)
    for (auto const window : windows) {
      if (is_plain(run, window) || (cache_ != nullptr && run.length == 1)) continue;
      auto& mask = masks_[{run.length, run.past, window}];
      if (!mask.defined()) mask = make_mask(run.length, run.past, window);
    }
}

at::Tensor AttentionPlan::make_mask(int64_t length, int64_t past, int64_t window) const {
  auto const options = at::TensorOptions().dtype(at::kLong).device(device_);
  auto const distance = at::sub(at::arange(past, past + length, options).unsqueeze(1),
                                at::arange(past + length, options).unsqueeze(0));  // [length, past + length]
  auto mask = distance.ge(0);
  if (window > 0) mask = mask.logical_and(distance.lt(window));
  if (rule_.slopes.defined())
    mask = at::mul(rule_.slopes, distance.neg().to(rule_.slopes.scalar_type()))
               .masked_fill_(mask.logical_not(), -std::numeric_limits<double>::infinity())
               .unsqueeze(0);
  return mask;
}

}  // namespace fsllm::detail
