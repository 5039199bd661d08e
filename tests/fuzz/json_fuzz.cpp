// SPDX-License-Identifier: Apache-2.0
// JSON documents, JSON lines and arrays: an Error or records, never anything else.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"

/// All records and complaints, with the text given in pieces of this size.
static std::string events(std::string_view text, size_t piece) {
  std::string all;
  fsllm::JsonRecords records(
      "fuzz", [&](nlohmann::json const& record, auto const&) { all += record.dump() + "\n"; },
      [&](std::string const& why, auto const& place) { all += std::to_string(place.line) + why + "\n"; });
  for (size_t at = 0; at < text.size(); at += piece) records.feed(text.substr(at, piece));
  records.finish();
  return all;
}

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
  if (events(text, text.size() + 1) != events(text, 1 + size % 7)) std::abort();
  return 0;
}
