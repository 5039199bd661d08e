// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace fsllm {

/// Word → ids, for words seen before. Bounded: emptied when it is full.
class WordCache {
 public:
  /// The ids of `word`; false: not here.
  bool find(std::string_view word, uint64_t hash, std::vector<int32_t>& ids) const;
  void insert(std::string_view word, uint64_t hash, int32_t const* ids, size_t count);

 private:
  struct Slot {
    uint64_t hash = 0;
    uint32_t text = 0, ids = 0;
    uint16_t length = 0, count = 0;  ///< length 0: free
  };
  void grow();
  void clear();
  std::vector<Slot> slots_;
  std::vector<char> text_;
  std::vector<int32_t> ids_;
  size_t size_ = 0;
};

}  // namespace fsllm
