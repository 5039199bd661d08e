// SPDX-License-Identifier: Apache-2.0
#pragma once
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

/// The `model` of a tokenizer.json of type Unigram (Kudo 2018): the cut of a word into tokens whose scores
/// (log probabilities) have the largest sum. Of equal sums the one found first, from the left and by length,
/// stays, as in Hugging Face's `tokenizers`. Const and safe from many threads, each with its own Memory.
class Unigram {
 public:
  /// `where` names the file.
  Unigram(nlohmann::json const& model, std::string const& where);

  /// The best cut of a word's first bytes: its last token.
  struct BestCut {
    double score = 0;
    int32_t begin = -1;  ///< -1: no cut ends here
    int32_t id = -1;     ///< -1: a character that no token covers
  };
  struct Memory {
    WordCache cache;
    std::vector<BestCut> best;
    std::vector<int32_t> ids;
  };
  /// Appends the ids of one word. An unknown character without byte tokens or unk_id is an Error.
  void encode(std::string_view word, std::vector<int32_t>& ids, Memory& memory) const;

  /// The text of a token as the file writes it; "" for an id outside of the vocabulary.
  std::string const& token(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view token) const;
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }

 private:
  void read_vocabulary(nlohmann::json const& vocab, std::string const& where);
  void add_to_trie(std::string_view token, int32_t id);
  void find_best(std::string_view word, std::vector<BestCut>& best) const;
  void append_ids(std::string_view text, std::vector<int32_t>& ids) const;

  std::vector<std::string> tokens_;  ///< by id
  std::vector<double> scores_;
  StringTable table_;
  PairTable<int32_t> children_{-1};  ///< of the trie of all tokens: (node, byte) → node; the root is 0
  std::vector<int32_t> node_tokens_;
  double unknown_score_ = 0;
  std::optional<int32_t> unknown_;
  bool byte_fallback_ = false;
  std::string where_;
};

}  // namespace fsllm
