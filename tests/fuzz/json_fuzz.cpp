// SPDX-License-Identifier: Apache-2.0
// JSON documents, JSON lines and arrays: an Error or records, never anything else.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  std::string_view const text(reinterpret_cast<char const*>(data), size);
  try {
    fsllm::parse_json(text, "fuzz");
  } catch (fsllm::Error const&) {
  }
  int64_t last = 1, lines = 1 + static_cast<int64_t>(std::count(text.begin(), text.end(), '\n'));
  auto const in_order = [&](fsllm::RecordPlace const& place) {
    if (place.line < last || place.line > lines) std::abort();
    last = place.line;
  };
  fsllm::for_each_json_record_in(
      text, "fuzz",
      [&](nlohmann::json const& record, fsllm::RecordPlace const& place) {
        in_order(place);
        if (!record.is_object()) std::abort();
      },
      [&](std::string const&, fsllm::RecordPlace const& place) { in_order(place); });
  return 0;
}
