// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/json_text.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "json_reason.hpp"

namespace fsllm {

using nlohmann::json;

json read_json(std::filesystem::path const& path) {
  auto const text = read_file(path);
  if (auto const depth = json_depth(text); depth > kDeepestJson)
    fail(fmt::format("{}: brackets stand {} deep in one another ({} at most). Copy the file again.",
                     path.string(), depth, kDeepestJson));
  return parse_json(text, path.string());
}

json parse_json(std::string_view text, std::string const& source) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  try {
    return json::parse(text);
  } catch (json::exception const& error) {
    size_t const at = byte_of(error);
    auto const before = text.substr(0, std::min(at > 0 ? at - 1 : 0, text.size()));
    auto const column = before.size() - (before.rfind('\n') + 1) + 1;
    FSLLM_CHECK(text.find_first_not_of(" \t\r\n") != std::string_view::npos,
                "{} is empty (a JSON document is needed). Copy the file again.", source);
    fail(fmt::format("{}:{}:{}: {}. Correct it, or copy the file again.", source,
                     std::count(before.begin(), before.end(), '\n') + 1, column, reason(error)));
  }
}

}  // namespace fsllm
