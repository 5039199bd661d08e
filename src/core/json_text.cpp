// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/json_text.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace fsllm {
namespace {

/// Calls `see(c, i, depth, in_text)` for every character; depth counts the bracket itself.
template <class See>
void scan(std::string_view json, See const& see) {
  size_t depth = 0;
  bool in_text = false, escaped = false;
  for (size_t i = 0; i < json.size(); ++i) {
    char const c = json[i];
    bool const quote = c == '"' && !escaped;
    if (!in_text && (c == '{' || c == '[')) ++depth;
    see(c, i, depth, in_text || quote);
    if (!in_text && (c == '}' || c == ']') && depth > 0) --depth;
    escaped = in_text && !escaped && c == '\\';
    if (quote) in_text = !in_text;
  }
}

}  // namespace

size_t json_depth(std::string_view json) {
  size_t deepest = 0;
  scan(json, [&](char, size_t, size_t depth, bool) { deepest = std::max(deepest, depth); });
  return deepest;
}

std::string json_member(std::string_view object, std::string_view key) {
  std::string name, value, found;
  bool behind_colon = false;
  scan(object, [&](char c, size_t, size_t depth, bool in_text) {
    bool const blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    bool const at_top = depth == 1 && !in_text;
    if (at_top && c == ':') {
      behind_colon = true;
    } else if (at_top && (c == ',' || c == '{' || c == '}')) {
      if (behind_colon && nlohmann::json::parse(name, nullptr, false) == key) found = value;
      behind_colon = false;
      name.clear();
      value.clear();
    } else if (depth > 0 && (in_text || !blank)) {
      (behind_colon ? value : name) += c;
    }
  });
  return found;
}

}  // namespace fsllm
