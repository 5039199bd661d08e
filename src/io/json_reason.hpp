// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace fsllm {

/// The middle of a message that quotes much of its input, left out.
inline std::string shortened(std::string_view text) {
  constexpr size_t kLongest = 240, kTail = 60;
  if (text.size() <= kLongest) return std::string(text);
  return std::string(text.substr(0, kLongest - kTail)) + " ... " +
         std::string(text.substr(text.size() - kTail));
}

/// nlohmann's "[json.exception...] parse error at line 1, column 5: reason" without its preamble.
inline std::string reason(nlohmann::json::exception const& error) {
  std::string_view const what = error.what();
  for (std::string_view before : {"column ", "] "}) {
    auto const at = what.find(before);
    if (at == std::string::npos) continue;
    auto const end = before == "] " ? at + before.size() : what.find(": ", at) + 2;
    return shortened(what.substr(end));
  }
  return shortened(what);
}

/// Where parsing stopped, in bytes; numbers beyond double (json::out_of_range) have no place.
inline size_t byte_of(nlohmann::json::exception const& error) {
  auto const* const parse = dynamic_cast<nlohmann::json::parse_error const*>(&error);
  return parse != nullptr ? parse->byte : 0;
}

}  // namespace fsllm
