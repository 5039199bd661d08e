// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/text/string_table.hpp"

namespace fsllm {

struct SentencePieceModel;

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

/// The `model` of a tokenizer.json of type BPE (Sennrich et al. 2016): merges the adjacent pair of lowest
/// rank, leftmost first, until none is left. Const and safe from many threads, each with its own Memory.
class Bpe {
 public:
  /// `byte_level`: words are raw bytes, tokens are written in GPT-2's byte alphabet. `where` names the file.
  Bpe(nlohmann::json const& model, bool byte_level, std::string const& where);
  /// The merges that a SentencePiece BPE model implies (it must be plain, see there).
  explicit Bpe(SentencePieceModel const& model);

  struct Symbol {
    int32_t id, previous, next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t position, left, right,
        merged;  ///< ids of the two symbols when it was proposed, and of the result
  };
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  struct Memory {
    WordCache cache;
    std::vector<int32_t> ids;
    std::vector<Merge> pairs;
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };
  /// Appends the ids of one word.
  void encode(std::string_view word, std::vector<int32_t>& ids, Memory& memory) const;

  /// Appends the ids of a text that is cut into words before each run of `mark` ("" for one word): see
  /// mark_only_leads.
  void encode_marked(std::string_view text, std::string_view mark, std::vector<int32_t>& ids,
                     Memory& memory) const;

  /// The text of a token as the file writes it; "" for an id outside of the vocabulary.
  std::string const& token(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view token) const;
  /// One more than the largest id.
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  /// True if no token has `mark` behind another character: then words may be cut before every run of marks.
  bool mark_only_leads(std::string_view mark) const;

 private:
  static constexpr uint32_t kNoMerge = UINT32_MAX;
  void read_vocabulary(nlohmann::json const& vocab, std::string const& where);
  void read_merges(nlohmann::json const& merges, std::string const& where);
  void read_symbols(nlohmann::json const& model, std::string const& where);
  void read_splits(SentencePieceModel const& model);
  void reserve_merges(size_t count);
  void add_merge(int32_t left, int32_t right, Merge merge);
  Merge find_merge(int32_t left, int32_t right) const;
  /// The symbols that BPE starts from: bytes or characters, with byte fallback and unknown tokens.
  void first_symbols(std::string_view word, std::vector<int32_t>& ids) const;
  bool fall_back_to_bytes(std::string_view character, std::vector<int32_t>& ids) const;
  void merge_short(std::vector<int32_t>& ids, std::vector<Merge>& pairs) const;
  void merge_long(Memory& memory) const;

  struct MergeSlot {
    uint64_t key = UINT64_MAX;
    Merge merge{kNoMerge, -1};
  };
  bool byte_level_, ignore_merges_ = false, fuse_unknown_ = false;
  std::vector<std::string> tokens_;  ///< by id
  StringTable table_;                ///< by text, as the words have it (bytes or characters)
  std::vector<MergeSlot> merges_;
  size_t merge_mask_ = 0;
  std::array<int32_t, 256> byte_ids_{};      ///< byte_level: the token of one byte, or -1
  std::array<int32_t, 256> fallback_ids_{};  ///< the tokens <0x00> … <0xFF>, or -1
  std::optional<int32_t> unknown_;
};

/// The byte that a token <0x0A> stands for, or -1.
int byte_of_token(std::string_view token);

}  // namespace fsllm
