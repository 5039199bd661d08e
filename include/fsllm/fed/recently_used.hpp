// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <list>
#include <map>
#include <utility>

namespace fsllm {

/// What clients have in memory, up to `limit` bytes: the least recently used leaves first, the newest always
/// stays.
template <class Value>
class RecentlyUsed {
 public:
  explicit RecentlyUsed(int64_t limit) : limit_(limit) {}

  /// Null where it is not in memory; else it is the most recently used one.
  Value const* find(int64_t client) {
    auto const found = entries_.find(client);
    if (found == entries_.end()) return nullptr;
    uses_.splice(uses_.begin(), uses_, found->second.use);
    return &found->second.value;
  }
  void put(int64_t client, Value value, int64_t bytes) {
    remove(client);
    bytes += kOfEntry;
    uses_.push_front(client);
    entries_.emplace(client, Entry{std::move(value), bytes, uses_.begin()});
    bytes_ += bytes;
    while (bytes_ > limit_ && uses_.size() > 1) remove(uses_.back());
  }
  void clear() {
    entries_.clear();
    uses_.clear();
    bytes_ = 0;
  }

 private:
  static constexpr int64_t kOfEntry =
      16 << 10;  ///< what small tensors and their vectors take beside their bytes

  struct Entry {
    Value value;
    int64_t bytes;
    std::list<int64_t>::iterator use;
  };
  void remove(int64_t client) {
    auto const found = entries_.find(client);
    if (found == entries_.end()) return;
    bytes_ -= found->second.bytes;
    uses_.erase(found->second.use);
    entries_.erase(found);
  }

  int64_t limit_, bytes_ = 0;
  std::map<int64_t, Entry> entries_;
  std::list<int64_t> uses_;  ///< most recent first
};

}  // namespace fsllm
