// SPDX-License-Identifier: Apache-2.0
#include "python_text.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

#include "fsllm/core/utf8.hpp"
#include "value.hpp"

namespace fsllm::jinja {
namespace {

/// str.isspace: White_Space and the separators U+001C to U+001F.
bool is_space(char32_t c) {
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

/// Another part of a text that is cut.
void add_part(std::vector<std::string>& parts, std::string_view part) {
  charge(2 * sizeof(Value) + 2 * part.size());
  parts.emplace_back(part);
}

std::string mapped(std::string_view text, utf8proc_int32_t (*map)(utf8proc_int32_t)) {
  charge(8 * text.size());
  std::string out;
  for (size_t at = 0; at < text.size();) {
    auto const [value, length] = code_point_at(text, at);
    if (value == 0xDF && map == utf8proc_toupper)
      out += "SS";
    else
      append_utf8(out, static_cast<char32_t>(map(static_cast<utf8proc_int32_t>(value))));
    at += length;
  }
  return out;
}

bool is_letter(char32_t c) {
  auto const category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

std::vector<std::string> split_at_space(std::string_view text, int64_t most) {
  std::vector<std::string> parts;
  text = strip(text, Side::left);
  while (!text.empty()) {
    size_t end = 0;
    if (most >= 0 && std::cmp_equal(parts.size(), most)) {
      add_part(parts, strip(text, Side::right));
      break;
    }
    while (end < text.size() && !is_space(code_point_at(text, end).value))
      end += code_point_at(text, end).length;
    add_part(parts, text.substr(0, end));
    text = strip(text.substr(end), Side::left);
  }
  return parts;
}

}  // namespace

size_t find_text(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  charge(part.size());
  if (part.empty()) return from;
  auto const* const found =
      static_cast<char const*>(memmem(text.data() + from, text.size() - from, part.data(), part.size()));
  size_t const at = found == nullptr ? std::string_view::npos : static_cast<size_t>(found - text.data());
  charge((found == nullptr ? text.size() : at) - from);
  return at;
}

int64_t count_characters(std::string_view text) {
  charge(text.size());
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

std::vector<std::string_view> characters(std::string_view text) {
  charge(text.size() * sizeof(std::string_view));
  std::vector<std::string_view> all;
  for (size_t at = 0; at < text.size();) {
    size_t const size = code_point_at(text, at).length;
    all.push_back(text.substr(at, size));
    at += size;
  }
  return all;
}

std::string_view strip(std::string_view text, Side side, std::string_view const* set) {
  auto const goes = [&](CodePoint const& point, size_t at) {
    charge(1 + (set != nullptr ? set->size() : 0));
    return set != nullptr ? set->find(text.substr(at, point.length)) != std::string_view::npos
                          : is_space(point.value);
  };
  while (side != Side::right && !text.empty()) {
    auto const point = code_point_at(text, 0);
    if (!goes(point, 0)) break;
    text.remove_prefix(point.length);
  }
  while (side != Side::left && !text.empty()) {
    auto const point = code_point_before(text, text.size());
    if (!goes(point, text.size() - point.length)) break;
    text.remove_suffix(point.length);
  }
  return text;
}

std::vector<std::string> split(std::string_view text, std::string_view const* separator, int64_t most) {
  if (separator == nullptr) return split_at_space(text, most);
  if (separator->empty()) refuse("split() at an empty text");
  std::vector<std::string> parts;
  while (most < 0 || std::cmp_less(parts.size(), most)) {
    size_t const at = find_text(text, *separator);
    if (at == std::string_view::npos) break;
    add_part(parts, text.substr(0, at));
    text.remove_prefix(at + separator->size());
  }
  add_part(parts, text);
  return parts;
}

std::vector<std::string> rsplit(std::string_view text, std::string_view separator, int64_t most) {
  if (separator.empty()) refuse("rsplit() at an empty text");
  if (text.size() > 0) charge(text.size() * std::min(separator.size(), text.size()));
  std::vector<std::string> parts;
  while (most < 0 || std::cmp_less(parts.size(), most)) {
    size_t const at = text.rfind(separator);
    if (at == std::string_view::npos) break;
    add_part(parts, text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  add_part(parts, text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    size_t const end = std::min(text.find_first_of("\r\n"), text.size());
    add_part(lines, text.substr(0, end));
    text.remove_prefix(end);
    text.remove_prefix(text.starts_with("\r\n") ? 2 : std::min<size_t>(1, text.size()));
  }
  return lines;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t most) {
  if (from.empty()) refuse("replace() of an empty text");
  std::string out;
  for (size_t at; most != 0 && (at = find_text(text, from)) != std::string_view::npos; most -= most > 0) {
    charge(at + to.size());
    (out += text.substr(0, at)) += to;
    text.remove_prefix(at + from.size());
  }
  charge(text.size());
  return out += text;
}

std::string upper(std::string_view text) {
  return mapped(text, utf8proc_toupper);
}

std::string lower(std::string_view text) {
  return mapped(text, utf8proc_tolower);
}

std::string title(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (auto const& character : characters(text)) {
    out += in_word ? lower(character) : mapped(character, utf8proc_totitle);
    in_word = is_letter(code_point_at(character, 0).value);
  }
  return out;
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return "";
  size_t const first = code_point_at(text, 0).length;
  return mapped(text.substr(0, first), utf8proc_totitle) + lower(text.substr(first));
}

}  // namespace fsllm::jinja
