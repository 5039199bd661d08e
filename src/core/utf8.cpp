// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/utf8.hpp"

#include <fmt/core.h>
#include <utf8proc.h>

#include <cstring>

namespace fsllm {
namespace {

constexpr char const* kReplacement = "\xEF\xBF\xBD";

struct Sequence {
  uint32_t length;  ///< bytes of the whole sequence, or of its broken part
  bool valid;
};

/// The well-formed byte ranges of Unicode's table 3-7: length by lead byte, and limits of the second byte.
Sequence sequence_at(std::string_view text, size_t at) {
  auto const byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  unsigned char const lead = byte(at);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  uint32_t const length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned char low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (uint32_t i = 1; i < length; ++i) {
    if (at + i >= text.size() || byte(at + i) < low || byte(at + i) > high) return {i, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true};
}

/// Bytes of pure ASCII from `at` on, eight at a time.
size_t ascii_run(std::string_view text, size_t at) {
  size_t i = at;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080ULL) != 0) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i - at;
}

/// Index of the first byte that is not part of valid UTF-8, or the size.
size_t valid_prefix(std::string_view text) {
  for (size_t i = 0;;) {
    i += ascii_run(text, i);
    if (i == text.size()) return i;
    auto const [length, valid] = sequence_at(text, i);
    if (!valid) return i;
    i += length;
  }
}

}  // namespace

CodePoint code_point_at(std::string_view text, size_t at) {
  auto const byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + i])); };
  char32_t const lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

CodePoint code_point_before(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return code_point_at(text, begin);
}

void append_utf8(std::string& text, char32_t c) {
  auto const add = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xC0 | c >> 6);
    add(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    add(0xE0 | c >> 12);
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  } else {
    add(0xF0 | c >> 18);
    add(0x80 | (c >> 12 & 0x3F));
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  }
}

bool is_ascii(std::string_view text) {
  return ascii_run(text, 0) == text.size();
}

std::string_view valid_utf8(std::string_view text, std::string& buffer) {
  size_t good = valid_prefix(text);
  if (good == text.size()) return text;
  buffer.clear();
  while (true) {
    buffer.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty()) return buffer;
    buffer.append(kReplacement);
    text.remove_prefix(sequence_at(text, 0).length);
    good = valid_prefix(text);
  }
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    auto const [length, valid] = sequence_at(text, i);
    char32_t const value = valid ? code_point_at(text, i).value : 0;
    bool const control = (value < 0x20 && value != '\n' && value != '\t') || (value >= 0x7F && value < 0xA0);
    bool const turns = (value >= 0x202A && value <= 0x202E) || (value >= 0x2066 && value <= 0x2069) ||
                       value == 0x200E || value == 0x200F || value == 0x2028 || value == 0x2029;
    if (valid && !control && !turns) {
      out += text.substr(i, length);
    } else if (valid && value > 0xFF) {
      out += fmt::format("\\u{:04X}", static_cast<uint32_t>(value));
    } else {
      for (size_t k = i; k < i + length && k < text.size(); ++k)
        out += fmt::format("\\x{:02X}",
                           valid ? static_cast<uint32_t>(value) : static_cast<unsigned char>(text[k]));
      if (valid && length > 1) out.resize(out.size() - 4 * (length - 1));
    }
    i += length;
  }
  return out;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, done)) {
    out.append(text.substr(done, at - done)).append(to);
    done = at + from.size();
  }
  return out.append(text.substr(done));
}

bool is_white_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  if (c < 0x1680) return c == 0x85 || c == 0xA0;
  return c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool is_word_character(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:  // circled and squared letters are Alphabetic symbols; the joiners U+200C and U+200D count as
              // well
      return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
             (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C || c == 0x200D;
  }
}

}  // namespace fsllm
