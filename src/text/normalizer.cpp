// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/normalizer.hpp"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "charsmap.hpp"
#include "fsllm/core/table.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/base64.hpp"
#include "unicode_tables.hpp"

namespace fsllm {
namespace {

using nlohmann::json;
using NormalizeStep = std::function<void(std::string&, Regex::Memory&)>;

/// One pass of utf8proc over a text.
std::string mapped_by_utf8proc(std::string_view text, int options) {
  if (text.empty()) return "";
  utf8proc_uint8_t* mapped = nullptr;
  auto const length = utf8proc_map(reinterpret_cast<utf8proc_uint8_t const*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                                   static_cast<utf8proc_option_t>(options));
  std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> const owner(mapped, &std::free);
  FSLLM_CHECK(length >= 0, "Unicode normalisation failed ({}). Shorten the text of {} bytes.",
              utf8proc_errmsg(length), text.size());
  return {reinterpret_cast<char const*>(mapped), static_cast<size_t>(length)};
}

/// Normalises what lies between characters that Hugging Face's tables do not know.
void map_unicode(std::string& text, int options) {
  std::string out;
  std::string_view const all = text;
  size_t done = 0;
  for (size_t at = 0; at < all.size();) {
    auto const [value, length] = code_point_at(all, at);
    if (find_range(unknown_to_normal_forms(), value) != nullptr) {
      out.append(mapped_by_utf8proc(all.substr(done, at - done), options)).append(all.substr(at, length));
      done = at + length;
    }
    at += length;
  }
  text = out.append(mapped_by_utf8proc(all.substr(done), options));
}

/// Characters that composition neither changes nor combines with: below U+0300, general punctuation, CJK
/// ideographs.
bool stable_under_nfc(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    auto const c = code_point_at(text, at);
    bool const stable = c.value < 0x300 || (c.value >= 0x2010 && c.value <= 0x2027) ||
                        (c.value >= 0x4E00 && c.value <= 0x9FFF);
    if (!stable) return false;
    at += c.length;
  }
  return true;
}

NormalizeStep unicode_step(int options) {
  return [options](std::string& text, Regex::Memory&) {
    if (!is_ascii(text)) map_unicode(text, UTF8PROC_STABLE | options);
  };
}

void lower_case(std::string& text, Regex::Memory&) {
  std::string lower;
  lower.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    auto const c = code_point_at(text, at);
    // U+0130 is the one character whose full lower-case form has two code points.
    if (auto const* range = find_range(newer_lower_case(), c.value)) {
      append_utf8(lower, static_cast<char32_t>(static_cast<int32_t>(c.value) + range->distance));
    } else if (c.value == 0x130) {
      lower.append("i\xCC\x87");
    } else {
      append_utf8(lower, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))));
    }
    at += c.length;
  }
  text = std::move(lower);
}

NormalizeStep replace_step(json const& description, std::string const& where) {
  auto const pattern = parse_pattern(description.at("pattern"), where);
  return [pattern, content = description.at("content").get<std::string>()](std::string& text,
                                                                           Regex::Memory& memory) {
    std::string out;
    size_t done = 0;
    Regex::Match match;
    for (size_t from = 0; from <= text.size() && pattern.find(text, from, match, memory);
         from = match.end > match.begin ? match.end : match.end + 1) {
      out.append(text, done, match.begin - done).append(content);
      done = match.end;
    }
    if (done > 0 || !out.empty()) text = out.append(text, done);
  };
}

NormalizeStep strip_step(bool left, bool right) {
  return [left, right](std::string& text, Regex::Memory&) {
    size_t begin = 0, end = text.size();
    while (left && begin < end && is_white_space(code_point_at(text, begin).value))
      begin += code_point_at(text, begin).length;
    while (right && end > begin && is_white_space(code_point_before(text, end).value))
      end -= code_point_before(text, end).length;
    text = text.substr(begin, end - begin);
  };
}

NormalizeStep charsmap_step(json const& description, std::string const& where) {
  auto const bytes = decode_base64(description.at("precompiled_charsmap").get<std::string>());
  FSLLM_CHECK(bytes, "{}: precompiled_charsmap is not base64. Copy the file again.", where);
  return [map = Charsmap(*bytes, where)](std::string& text, Regex::Memory&) { text = map.apply(text); };
}

NormalizeStep prepend_step(std::string const& prefix) {
  return [prefix](std::string& text, Regex::Memory&) {
    if (!text.empty()) text.insert(0, prefix);
  };
}

using NormalizerBuilder = NormalizeStep (*)(json const&, std::string const&);
std::vector<Row<NormalizerBuilder>> const& normalizers() {
  static std::vector<Row<NormalizerBuilder>> const rows{
      {"NFC", [](json const&, std::string const&) { return unicode_step(UTF8PROC_COMPOSE); },
       "canonical composition"},
      {"NFD", [](json const&, std::string const&) { return unicode_step(UTF8PROC_DECOMPOSE); },
       "canonical decomposition"},
      {"NFKC",
       [](json const&, std::string const&) { return unicode_step(UTF8PROC_COMPOSE | UTF8PROC_COMPAT); },
       "compatibility composition"},
      {"NFKD",
       [](json const&, std::string const&) { return unicode_step(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT); },
       "compatibility decomposition"},
      {"Lowercase", [](json const&, std::string const&) { return NormalizeStep(lower_case); }, "lower case"},
      {"Prepend",
       [](json const& d, std::string const&) { return prepend_step(d.at("prepend").get<std::string>()); },
       "a text before each non-empty part"},
      {"Replace", replace_step, "every match of a pattern"},
      {"Precompiled", charsmap_step, "SentencePiece's table of characters"},
      {"Strip",
       [](json const& d, std::string const&) {
         return strip_step(d.value("strip_left", true), d.value("strip_right", true));
       },
       "white space at the ends"},
  };
  return rows;
}

}  // namespace

Regex parse_pattern(json const& description, std::string const& where) {
  if (description.contains("Regex")) return {description.at("Regex").get<std::string>(), where};
  auto const& literal = description.at("String").get_ref<std::string const&>();
  std::string quoted;
  for (char const c : literal) {
    if (std::string_view("\\^$.|?*+()[]{}-#").find(c) != std::string_view::npos) quoted.push_back('\\');
    quoted.push_back(c);
  }
  return {quoted, where};
}

Normalizer::Normalizer(json const& description, std::string const& where) {
  if (!description.is_null()) add(description, where);
}

void Normalizer::add(json const& description, std::string const& where) {
  auto const type = description.at("type").get<std::string>();
  if (type == "Sequence") {
    for (auto const& step : description.at("normalizers")) add(step, where);
    return;
  }
  only_canonical_composition_ = only_canonical_composition_ && type == "NFC";
  steps_.push_back(find_row(normalizers(), type, where + ": normalizer type")
                       .build(description, where + ": normalizer " + type));
}

void Normalizer::apply(std::string& text, Regex::Memory& memory) const {
  for (auto const& step : steps_) step(text, memory);
}

bool Normalizer::leaves_alone(std::string_view text) const {
  return steps_.empty() || (only_canonical_composition_ && stable_under_nfc(text));
}

}  // namespace fsllm
