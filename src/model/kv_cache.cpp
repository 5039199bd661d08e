// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/kv_cache.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

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

KvCache::Slot& KvCache::with_room(int64_t layer, int64_t row, at::Tensor const& like, int64_t tokens) {
  auto& slot = slots_[static_cast<size_t>(layer)][static_cast<size_t>(row)];
  int64_t const before = past(row);
  reserve(slot.keys, like, before, before + tokens, slot.shared);
  reserve(slot.values, like, before, before + tokens, slot.shared);
  slot.shared = false;
  return slot;
}

std::pair<at::Tensor, at::Tensor> KvCache::append(int64_t layer, int64_t row, at::Tensor const& k,
                                                  at::Tensor const& v) {
  int64_t const before = past(row), count = k.size(0);
  auto const& slot = with_room(layer, row, k, count);
  slot.keys.narrow(0, before, count).copy_(k);
  slot.values.narrow(0, before, count).copy_(v);
  return {slot.keys.narrow(0, 0, before + count), slot.values.narrow(0, 0, before + count)};
}

std::vector<KvCache::Cached> KvCache::append_to_each(int64_t layer, at::Tensor const& k,
                                                     at::Tensor const& v) {
  auto const keys = k.contiguous(), values = v.contiguous();
  auto const bytes = keys.nbytes() / static_cast<size_t>(k.size(0));
  auto const put = [&](at::Tensor const& from, at::Tensor const& to, size_t row, size_t place) {
    std::memcpy(static_cast<std::byte*>(to.mutable_data_ptr()) + place * bytes,
                static_cast<std::byte const*>(from.const_data_ptr()) + row * bytes, bytes);
  };
  std::vector<Cached> cached;
  for (int64_t row = 0; row < k.size(0); ++row) {
    auto const& slot = with_room(layer, row, keys, 1);
    put(keys, slot.keys, static_cast<size_t>(row), static_cast<size_t>(past(row)));
    put(values, slot.values, static_cast<size_t>(row), static_cast<size_t>(past(row)));
    cached.push_back({slot.keys.const_data_ptr(), slot.values.const_data_ptr(), past(row) + 1});
  }
  return cached;
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
    for (auto const row : rows) {
      auto& slot = layer[static_cast<size_t>(row)];
      kept.push_back(slot);
      slot.shared = true;  // where it is kept once more
    }
    layer = std::move(kept);
  }
  std::vector<int64_t> past;
  for (auto const row : rows) past.push_back(past_[static_cast<size_t>(row)]);
  past_ = std::move(past);
}

}  // namespace fsllm
