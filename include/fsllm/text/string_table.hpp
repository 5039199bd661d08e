// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace fsllm {

/// 64 well-mixed bits of a byte string (folded 64×64-bit products, in the manner of wyhash). Not for storage:
/// the value depends on the machine's byte order.
inline uint64_t hash_bytes(std::string_view text) {
  auto const fold = [](uint64_t a, uint64_t b) {
    auto const product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  constexpr uint64_t k0 = 0xa0761d6478bd642fULL, k1 = 0xe7037ed1a0b428dbULL;
  uint64_t hash = k0 ^ text.size();
  char const* p = text.data();
  size_t left = text.size();
  for (; left > 8; p += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    hash = fold(hash ^ word, k1);
  }
  uint64_t word = 0;
  if (left > 0) std::memcpy(&word, p, left);
  return fold(hash ^ word, k0);
}

/// Byte strings to 32-bit values: open addressing, keys in one arena. Made once, read often.
class StringTable {
 public:
  static constexpr int32_t kMissing = -1;

  /// The value of `key`, or kMissing.
  int32_t find(std::string_view key) const {
    if (slots_.empty()) return kMissing;
    uint64_t const hash = hash_bytes(key);
    for (size_t i = hash & mask_;; i = (i + 1) & mask_) {
      auto const& slot = slots_[i];
      if (slot.value == kMissing) return kMissing;
      if (slot.hash == hash && view(slot) == key) return slot.value;
    }
  }

  /// Adds a key (value >= 0); a key that is there already keeps its first value and gives false.
  bool insert(std::string_view key, int32_t value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    uint64_t const hash = hash_bytes(key);
    size_t i = hash & mask_;
    for (; slots_[i].value != kMissing; i = (i + 1) & mask_)
      if (slots_[i].hash == hash && view(slots_[i]) == key) return false;
    slots_[i] = {hash, arena_.size(), static_cast<uint32_t>(key.size()), value};
    arena_.insert(arena_.end(), key.begin(), key.end());
    ++size_;
    return true;
  }

 private:
  struct Slot {
    uint64_t hash = 0;
    size_t begin = 0;
    uint32_t length = 0;
    int32_t value = kMissing;
  };
  std::string_view view(Slot const& slot) const { return {arena_.data() + slot.begin, slot.length}; }
  void grow() {
    std::vector<Slot> old(slots_.empty() ? 16 : 2 * slots_.size());
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    for (auto const& slot : old) {
      if (slot.value == kMissing) continue;
      size_t i = slot.hash & mask_;
      while (slots_[i].value != kMissing) i = (i + 1) & mask_;
      slots_[i] = slot;
    }
  }

  std::vector<Slot> slots_;
  std::vector<char> arena_;
  size_t size_ = 0, mask_ = 0;
};

}  // namespace fsllm
