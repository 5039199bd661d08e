// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/kv_cache.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// Room for `needed` tokens, keeping the first `used`.
void reserve(at::Tensor& buffer, at::Tensor const& like, int64_t used, int64_t needed, bool shared) {
  int64_t const capacity = buffer.defined() && !shared ? buffer.size(0) : 0;
  if (needed <= capacity) return;
  auto grown = at::empty({std::max(needed, 2 * capacity), like.size(1), like.size(2)}, like.options());
  if (used > 0) grown.narrow(0, 0, used).copy_(buffer.narrow(0, 0, used));
  buffer = grown;
}

}  // namespace

KvCache::KvCache(int64_t layers, int64_t rows)
    : slots_(static_cast<size_t>(layers), std::vector<Slot>(static_cast<size_t>(rows))),
      past_(static_cast<size_t>(rows), 0) {}

std::pair<at::Tensor, at::Tensor> KvCache::append(int64_t layer, int64_t row, at::Tensor const& k,
                                                  at::Tensor const& v) {
  auto& slot = slots_[static_cast<size_t>(layer)][static_cast<size_t>(row)];
  int64_t const before = past(row), count = k.size(0);
  reserve(slot.keys, k, before, before + count, slot.shared);
  reserve(slot.values, v, before, before + count, slot.shared);
  slot.shared = false;
  slot.keys.narrow(0, before, count).copy_(k);
  slot.values.narrow(0, before, count).copy_(v);
  return {slot.keys.narrow(0, 0, before + count), slot.values.narrow(0, 0, before + count)};
}

void KvCache::add_row() {
  for (auto& layer : slots_) layer.emplace_back();
  past_.push_back(0);
}

void KvCache::add_row(KvCache const& other, int64_t row, int64_t tokens) {
  for (size_t layer = 0; layer < slots_.size(); ++layer) {
    auto slot = other.slots_[layer][static_cast<size_t>(row)];
    slot.shared = true;
    slots_[layer].push_back(std::move(slot));
  }
  past_.push_back(tokens);
}

/// In new memory: other rows may have the old one.
void KvCache::restart(int64_t row) {
  for (auto& layer : slots_) layer[static_cast<size_t>(row)] = {};
  past_[static_cast<size_t>(row)] = 0;
}

void KvCache::keep(std::vector<int64_t> const& rows) {
  for (auto& layer : slots_) {
    std::vector<Slot> kept;
    for (auto const row : rows) kept.push_back(layer[static_cast<size_t>(row)]);
    layer = std::move(kept);
  }
  std::vector<int64_t> past;
  for (auto const row : rows) past.push_back(past_[static_cast<size_t>(row)]);
  past_ = std::move(past);
}

}  // namespace fsllm
