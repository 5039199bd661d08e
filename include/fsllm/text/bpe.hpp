// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/text/pair_table.hpp"
#include "fsllm/text/string_table.hpp"
#include "fsllm/text/word_cache.hpp"

namespace fsllm {

struct SentencePieceModel;

/// The `model` of a tokenizer.json of type BPE (Sennrich et al. 2016): merges the adjacent pair of lowest
/// rank, leftmost first, until none is left. Const and safe from many threads, each with its own Memory.
class Bpe {
 public:
  /// `byte_level`: words are raw bytes, tokens are written in GPT-2's byte alphabet. `where` names the file.
  Bpe(nlohmann::json const& model, bool byte_level, std::string const& where);
  /// The merges that a SentencePiece BPE model implies (it must be plain, see there).
  explicit Bpe(SentencePieceModel const& model);
  /// Byte strings by rank, which is their id (tiktoken): a word that is a token stays whole, every pair that
  /// makes a token merges. Each single byte must be among them.
  explicit Bpe(std::vector<std::string> const& tokens);

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

  /// The text of a token as the file writes it; "" for an id outside of the vocabulary.
  std::string const& token(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view token) const;
  /// One more than the largest id.
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }

 private:
  static constexpr uint32_t kNoMerge = UINT32_MAX;
  /// True if no token has `mark` behind another character: then words may be cut before every run of marks.
  bool mark_only_leads(std::string_view mark) const;
  void encode_word(std::string_view word, std::vector<int32_t>& ids, Memory& memory) const;
  void read_vocabulary(nlohmann::json const& vocab, std::string const& where);
  void read_merges(nlohmann::json const& merges, std::string const& where);
  void read_symbols(nlohmann::json const& model, std::string const& where);
  void add_splits(std::string_view text, Merge merge);
  /// The symbols that BPE starts from: bytes or characters, with byte fallback and unknown tokens.
  void first_symbols(std::string_view word, std::vector<int32_t>& ids) const;
  bool fall_back_to_bytes(std::string_view character, std::vector<int32_t>& ids) const;
  void merge_short(std::vector<int32_t>& ids, std::vector<Merge>& pairs) const;
  void merge_long(Memory& memory) const;

  bool byte_level_, ignore_merges_ = false, fuse_unknown_ = false;
  std::vector<std::string> tokens_;  ///< by id
  StringTable table_;                ///< by text, as the words have it (bytes or characters)
  PairTable<Merge> merges_{{kNoMerge, -1}};
  std::string mark_;  ///< words may be cut before each run of this text ("" for none): shorter, same ids
  std::array<int32_t, 256> byte_ids_{};      ///< byte_level: the token of one byte, or -1
  std::array<int32_t, 256> fallback_ids_{};  ///< the tokens <0x00> … <0xFF>, or -1
  std::optional<int32_t> unknown_;
};

/// The byte that a token <0x0A> stands for, or -1.
int byte_of_token(std::string_view token);

}  // namespace fsllm
