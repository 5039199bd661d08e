// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace fsllm {

/// U+2581, which SentencePiece writes for a space.
inline constexpr char const* kVisibleSpace = "\xE2\x96\x81";

/// One code point of a text and the bytes it takes.
struct CodePoint {
  char32_t value = 0;
  uint32_t length = 0;
};

/// The code point that starts at byte `at` of valid UTF-8.
CodePoint code_point_at(std::string_view text, size_t at);
/// The code point that ends before byte `end` (> 0) of valid UTF-8.
CodePoint code_point_before(std::string_view text, size_t end);
void append_utf8(std::string& text, char32_t code_point);

bool is_ascii(std::string_view text);
/// `text` itself if it is valid UTF-8; else `buffer`, in which each maximal broken part (Unicode 15, section
/// 3.9, table 3-8) has become one U+FFFD, as Python's and Rust's lossy decoders do it.
std::string_view valid_utf8(std::string_view text, std::string& buffer);

/// For terminals, logs and pictures: control characters other than line feed and tab, characters that turn
/// the direction of text, and bytes that are not UTF-8 become \x1B, \u202E and the like.
std::string printable(std::string_view text);

/// Every `from` (not empty) as `to`.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

/// Unicode White_Space.
bool is_white_space(char32_t code_point);
/// What `\w` matches: Alphabetic, marks, decimal digits, connectors, joiners.
bool is_word_character(char32_t code_point);

}  // namespace fsllm
