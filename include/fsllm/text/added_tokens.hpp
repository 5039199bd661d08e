// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm {

/// Token ids are below this: far above any vocabulary, and what a broken file may ask memory for.
inline constexpr int64_t kTokenIdLimit = int64_t{1} << 24;

/// One entry of `added_tokens` in tokenizer.json: a text that is one token wherever it stands.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;      ///< dropped by decode with skip_special_tokens
  bool lstrip = false;       ///< takes the white space before it
  bool rstrip = false;       ///< takes the white space after it
  bool single_word = false;  ///< only where no word character touches it
  bool normalized = false;   ///< looked for in the normalised text, not in the original
  bool only_id = false;      ///< from added_tokens.json, which says nothing of the flags above
};

/// A part of a text: one added token, or (id -1) text between them.
struct TextPart {
  size_t begin = 0, end = 0;
  int32_t id = -1;
};

/// Finds added tokens in text: leftmost, then longest, as Hugging Face's Aho-Corasick automaton does.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  /// `contents[i]` is the (normalised) text under which tokens[i] is looked for; empty ones are never found.
  AddedTokenMatcher(std::vector<AddedToken> tokens, std::vector<std::string> const& contents);
  bool empty() const { return tokens_.empty(); }
  /// Appends the parts of text[begin, end) in order; white-space and word rules do not look beyond that
  /// range.
  void split(std::string_view text, size_t begin, size_t end, std::vector<TextPart>& parts) const;

 private:
  struct Node {
    int32_t token = -1;  ///< index into tokens_ that ends here
    int32_t child = -1;  ///< first child
    int32_t sibling = -1;
    char byte = 0;
  };
  void insert(std::string const& content, int32_t token);
  int32_t child_of(int32_t node, char byte) const;
  /// Token with the longest content at `at`, or -1; `length` is the content's.
  int32_t longest_at(std::string_view text, size_t at, size_t& length) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::vector<int32_t> root_ = std::vector<int32_t>(256, -1);
};

}  // namespace fsllm
