// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/bpe.hpp"

#include <algorithm>

#include "fsllm/core/utf8.hpp"

namespace fsllm {
namespace {

/// Above this many symbols a heap beats looking through all pairs for the best one.
constexpr size_t kShortWord = 48;

/// Order of the heap: lowest rank, then leftmost, on top.
bool later(Bpe::Candidate const& a, Bpe::Candidate const& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

}  // namespace

void Bpe::encode(std::string_view text, std::vector<int32_t>& ids, Memory& memory) const {
  size_t begin = 0;
  for (size_t at = mark_.empty() ? std::string_view::npos : text.find(mark_); at != std::string_view::npos;
       at = text.find(mark_, at)) {
    encode_word(text.substr(begin, at - begin), ids, memory);
    begin = at;
    while (text.substr(at).starts_with(mark_)) at += mark_.size();
  }
  encode_word(text.substr(begin), ids, memory);
}

void Bpe::encode_word(std::string_view word, std::vector<int32_t>& ids, Memory& memory) const {
  if (word.empty()) return;
  uint64_t const hash = hash_bytes(word);
  if (memory.cache.find(word, hash, ids)) return;
  memory.ids.clear();
  int32_t const whole = ignore_merges_ ? table_.find(word) : StringTable::kMissing;
  if (whole != StringTable::kMissing) {
    memory.ids.push_back(whole);
  } else {
    first_symbols(word, memory.ids);
    if (memory.ids.size() <= kShortWord) {
      merge_short(memory.ids, memory.pairs);
    } else {
      merge_long(memory);
    }
  }
  ids.insert(ids.end(), memory.ids.begin(), memory.ids.end());
  memory.cache.insert(word, hash, memory.ids.data(), memory.ids.size());
}

bool Bpe::fall_back_to_bytes(std::string_view character, std::vector<int32_t>& ids) const {
  auto const id_of_byte = [this](char c) { return fallback_ids_[static_cast<unsigned char>(c)]; };
  if (!std::all_of(character.begin(), character.end(), [&](char c) { return id_of_byte(c) >= 0; }))
    return false;
  for (char const c : character) ids.push_back(id_of_byte(c));
  return true;
}

void Bpe::first_symbols(std::string_view word, std::vector<int32_t>& ids) const {
  bool pending = false;  // an unknown token that further unknown characters may still join
  auto const flush = [&] {
    if (pending) ids.push_back(*unknown_);
    pending = false;
  };
  for (size_t at = 0; at < word.size();) {
    size_t const length = byte_level_ ? 1 : code_point_at(word, at).length;
    auto const character = word.substr(at, length);
    at += length;
    int32_t const id =
        byte_level_ ? byte_ids_[static_cast<unsigned char>(character[0])] : table_.find(character);
    if (id >= 0) {
      flush();
      ids.push_back(id);
    } else if (!fall_back_to_bytes(character, ids) && unknown_) {
      if (!fuse_unknown_) flush();
      pending = true;
    }
  }
  flush();
}

void Bpe::merge_short(std::vector<int32_t>& ids, std::vector<Merge>& pairs) const {
  size_t n = ids.size();
  if (n < 2) return;
  pairs.resize(n - 1);
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = merges_.get(ids[i], ids[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (pairs[i].rank < pairs[best].rank) best = i;
    if (pairs[best].rank == kNoMerge) break;
    ids[best] = pairs[best].id;
    std::copy(ids.begin() + static_cast<int64_t>(best) + 2, ids.begin() + static_cast<int64_t>(n),
              ids.begin() + static_cast<int64_t>(best) + 1);
    --n;
    if (best + 1 < n)
      std::copy(pairs.begin() + static_cast<int64_t>(best) + 1, pairs.begin() + static_cast<int64_t>(n),
                pairs.begin() + static_cast<int64_t>(best));
    if (best > 0) pairs[best - 1] = merges_.get(ids[best - 1], ids[best]);
    if (best + 1 < n) pairs[best] = merges_.get(ids[best], ids[best + 1]);
  }
  ids.resize(n);
}

void Bpe::merge_long(Memory& memory) const {
  auto& symbols = memory.symbols;
  auto& heap = memory.heap;
  symbols.clear();
  heap.clear();
  auto const count = static_cast<int32_t>(memory.ids.size());
  for (int32_t i = 0; i < count; ++i)
    symbols.push_back({memory.ids[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  auto const at = [&](int32_t i) -> Symbol& { return symbols[static_cast<size_t>(i)]; };
  auto const propose = [&](int32_t i) {
    if (i < 0 || at(i).next < 0) return;
    auto const merge = merges_.get(at(i).id, at(at(i).next).id);
    if (merge.rank == kNoMerge) return;
    heap.push_back({merge.rank, i, at(i).id, at(at(i).next).id, merge.id});
    std::push_heap(heap.begin(), heap.end(), later);
  };
  for (int32_t i = 0; i + 1 < count; ++i) propose(i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    auto const best = heap.back();
    heap.pop_back();
    auto& left = at(best.position);
    // Out of date: one of the two symbols was merged with another neighbour meanwhile.
    if (left.id != best.left || left.next < 0 || at(left.next).id != best.right) continue;
    auto& right = at(left.next);
    left.id = best.merged;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) at(left.next).previous = best.position;
    propose(left.previous);
    propose(best.position);
  }
  memory.ids.clear();
  for (int32_t i = 0; i >= 0; i = at(i).next) memory.ids.push_back(at(i).id);
}

std::string const& Bpe::token(int32_t id) const {
  static std::string const none;
  return id >= 0 && id < size() ? tokens_[static_cast<size_t>(id)] : none;
}

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  auto const digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  int const high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : 16 * high + low;
}

bool Bpe::mark_only_leads(std::string_view mark) const {
  return std::none_of(tokens_.begin(), tokens_.end(), [&](std::string const& token) {
    size_t begin = 0;
    while (std::string_view(token).substr(begin).starts_with(mark)) begin += mark.size();
    return token.find(mark, begin) != std::string::npos;
  });
}

}  // namespace fsllm
