// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/kv_cache.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// Room for `needed` tokens, keeping the first `used`.
void reserve(at::Tensor& buffer, at::Tensor const& like, int64_t used, int64_t needed) {
  int64_t const capacity = buffer.defined() ? buffer.size(0) : 0;
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
  reserve(slot.keys, k, before, before + count);
  reserve(slot.values, v, before, before + count);
  slot.keys.narrow(0, before, count).copy_(k);
  slot.values.narrow(0, before, count).copy_(v);
  return {slot.keys.narrow(0, 0, before + count), slot.values.narrow(0, 0, before + count)};
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
