// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/word_cache.hpp"

#include <cstring>

namespace fsllm {
namespace {

constexpr size_t kFirstSlots = size_t{1} << 12, kMostSlots = size_t{1} << 18;
constexpr size_t kLongestWord = 96;

}  // namespace

bool WordCache::find(std::string_view word, uint64_t hash, std::vector<int32_t>& ids) const {
  if (slots_.empty()) return false;
  size_t const mask = slots_.size() - 1;
  for (size_t i = hash & mask; slots_[i].length != 0; i = (i + 1) & mask) {
    auto const& slot = slots_[i];
    if (slot.hash != hash || slot.length != word.size() ||
        std::memcmp(&text_[slot.text], word.data(), word.size()) != 0)
      continue;
    auto const* const first = &ids_[slot.ids];
    if (slot.count == 1) {
      ids.push_back(*first);
    } else {
      ids.insert(ids.end(), first, first + slot.count);
    }
    return true;
  }
  return false;
}

void WordCache::insert(std::string_view word, uint64_t hash, int32_t const* ids, size_t count) {
  if (word.size() > kLongestWord || word.empty() || count == 0) return;
  if (2 * (size_ + 1) > slots_.size()) grow();
  size_t const mask = slots_.size() - 1;
  size_t i = hash & mask;
  while (slots_[i].length != 0) i = (i + 1) & mask;
  slots_[i] = {hash, static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(ids_.size()),
               static_cast<uint16_t>(word.size()), static_cast<uint16_t>(count)};
  text_.insert(text_.end(), word.begin(), word.end());
  ids_.insert(ids_.end(), ids, ids + count);
  ++size_;
}

void WordCache::grow() {
  if (slots_.size() == kMostSlots) return clear();
  std::vector<Slot> old(slots_.empty() ? kFirstSlots : 2 * slots_.size());
  old.swap(slots_);
  size_t const mask = slots_.size() - 1;
  for (auto const& slot : old) {
    if (slot.length == 0) continue;
    size_t i = slot.hash & mask;
    while (slots_[i].length != 0) i = (i + 1) & mask;
    slots_[i] = slot;
  }
}

void WordCache::clear() {
  slots_.assign(slots_.size(), {});
  text_.clear();
  ids_.clear();
  size_ = 0;
}

}  // namespace fsllm
