// SPDX-License-Identifier: Apache-2.0
#include "charsmap.hpp"

#include <utf8proc.h>

#include <cstring>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"
#include "unicode_tables.hpp"

namespace fsllm {
namespace {

// Fields of a unit of the double array.
bool has_leaf(uint32_t unit) {
  return (unit >> 8 & 1) != 0;
}
uint32_t value_of(uint32_t unit) {
  return unit & 0x7FFFFFFF;
}
uint32_t label_of(uint32_t unit) {
  return unit & 0x800000FF;
}
uint32_t offset_of(uint32_t unit) {
  return unit >> 10 << ((unit & 1U << 9) >> 6);
}

/// Bytes of the grapheme cluster (UAX #29) that begins at `at`.
size_t cluster_length(std::string_view text, size_t at) {
  utf8proc_int32_t state = 0;
  auto last = code_point_at(text, at);
  size_t end = at + last.length;
  while (end < text.size()) {
    auto const next = code_point_at(text, end);
    // U+0300 extends in every version.
    char32_t const as_known = find_range(newer_extending(), next.value) != nullptr ? 0x300 : next.value;
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.value),
                                         static_cast<utf8proc_int32_t>(as_known), &state) != 0)
      break;
    end += next.length;
    last = next;
  }
  return end - at;
}

}  // namespace

Charsmap::Charsmap(std::string const& bytes, std::string const& where) {
  uint32_t size = 0;
  if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
  bool const fits = size >= sizeof size && size % sizeof size == 0 && size <= bytes.size() - sizeof size;
  FSLLM_CHECK(fits,
              "{}: precompiled_charsmap is broken ({} bytes, of which a table of {}). Copy the file again.",
              where, bytes.size(), size);
  units_.resize(size / sizeof size);
  std::memcpy(units_.data(), bytes.data() + sizeof size, size);
  texts_ = bytes.substr(sizeof size + size);
  std::string buffer;
  FSLLM_CHECK(valid_utf8(texts_, buffer).data() == texts_.data(),
              "{}: precompiled_charsmap is broken (its texts are not UTF-8). Copy the file again.", where);
}

std::optional<std::string_view> Charsmap::find(std::string_view part) const {
  size_t at = offset_of(units_[0]);
  for (char const c : part) {
    auto const byte = static_cast<unsigned char>(c);
    at ^= byte;
    if (byte == 0 || at >= units_.size() || label_of(units_[at]) != byte) return std::nullopt;
    uint32_t const unit = units_[at];
    at ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (at >= units_.size() || value_of(units_[at]) > texts_.size()) return std::nullopt;
    auto const rest = std::string_view(texts_).substr(value_of(units_[at]));
    // A broken table may point into the middle of a character.
    bool const whole = rest.empty() || (static_cast<unsigned char>(rest[0]) & 0xC0) != 0x80;
    return whole ? std::optional(rest.substr(0, rest.find('\0'))) : std::nullopt;
  }
  return std::nullopt;
}

void Charsmap::append_cluster(std::string_view cluster, std::string& out) const {
  constexpr size_t kLongestWhole = 5;
  if (cluster.size() <= kLongestWhole)
    if (auto const text = find(cluster)) {
      out.append(*text);
      return;
    }
  for (size_t at = 0; at < cluster.size();) {
    auto const character = cluster.substr(at, code_point_at(cluster, at).length);
    out.append(find(character).value_or(character));
    at += character.size();
  }
}

std::string Charsmap::apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    size_t const length = cluster_length(text, at);
    append_cluster(text.substr(at, length), out);
    at += length;
  }
  return out;
}

}  // namespace fsllm
