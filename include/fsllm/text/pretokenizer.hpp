// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/text/regex.hpp"

namespace fsllm {

/// Bytes [begin, end) of a text.
struct Piece {
  size_t begin = 0, end = 0;
};

/// A text on its way to words: steps cut it further and may rewrite it. One per thread.
struct PieceBuffer {
  std::string_view text;
  std::vector<Piece> pieces;
  bool at_start = true;  ///< the text begins where the user's text begins (Metaspace's "first")

  std::vector<Piece> next;     ///< what a step is writing
  std::string storage, spare;  ///< rewritten text; `text` may point into `storage`
  Regex::Memory regex;
};

/// The `pre_tokenizer` of a tokenizer.json: ByteLevel, Split, Digits, Punctuation, Whitespace,
/// WhitespaceSplit, Metaspace, Sequence. Cuts text into the words that BPE works on.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  /// `where` names the file; a construct that is not known is an Error that names it.
  PreTokenizer(nlohmann::json const& description, std::string const& where);
  /// Leaves the words of `text` in `buffer`.
  void split(std::string_view text, bool at_start, PieceBuffer& buffer) const;
  /// Words are raw bytes, each of which stands for one character of GPT-2's byte alphabet.
  bool byte_level() const { return byte_level_; }

 private:
  using Step = std::function<void(PieceBuffer&)>;
  void add(nlohmann::json const& description, std::string const& where);
  std::vector<Step> steps_;
  bool byte_level_ = false;
  bool bytes_mapped_ = false;
};

/// GPT-2's byte alphabet: the printable character (UTF-8) that stands for each byte.
std::array<std::string, 256> const& byte_alphabet();
/// The bytes that a text in the byte alphabet stands for; false if it has other characters in it.
bool bytes_of_alphabet(std::string_view text, std::string& bytes);

}  // namespace fsllm
