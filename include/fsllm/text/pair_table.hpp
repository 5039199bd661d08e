// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fsllm {

/// Pairs of 32-bit numbers to values: open addressing. Made once, read often.
template <class Value>
class PairTable {
 public:
  /// `missing` is the value of every pair that was never set.
  explicit PairTable(Value missing) : missing_(missing), slots_(kFirstSlots, Slot{kFree, missing}) {}

  Value get(int32_t left, int32_t right) const {
    uint64_t const key = key_of(left, right);
    for (size_t i = start_of(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return slots_[i].value;
      if (slots_[i].key == kFree) return missing_;
    }
  }

  /// `left` and `right` are not both -1.
  void set(int32_t left, int32_t right, Value value) {
    if (2 * (size_ + 1) > slots_.size()) resize(2 * slots_.size());
    put({key_of(left, right), value});
  }

 private:
  struct Slot {
    uint64_t key;
    Value value;
  };
  static constexpr uint64_t kFree = UINT64_MAX;
  static constexpr size_t kFirstSlots = 16;
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t start_of(uint64_t key) const {
    uint64_t const mixed = (key ^ key >> 29) * 0x9E3779B97F4A7C15ULL;
    return static_cast<size_t>(mixed >> 20 ^ mixed >> 44) & (slots_.size() - 1);
  }
  void put(Slot const& slot) {
    size_t i = start_of(slot.key);
    while (slots_[i].key != kFree && slots_[i].key != slot.key) i = (i + 1) & (slots_.size() - 1);
    if (slots_[i].key == kFree) ++size_;
    slots_[i] = slot;
  }
  void resize(size_t count) {
    std::vector<Slot> old(count, Slot{kFree, missing_});
    old.swap(slots_);
    size_ = 0;
    for (auto const& slot : old)
      if (slot.key != kFree) put(slot);
  }

  Value missing_;
  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace fsllm
