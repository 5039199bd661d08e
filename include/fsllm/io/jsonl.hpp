// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace fsllm {

/// Where a record came from, for messages: "train.jsonl:17".
struct RecordPlace {
  std::string file;
  int64_t line = 0;
};

/// Calls `row` for each JSON object of a file, in order: JSON lines, or one JSON array of objects; plain or
/// gzip (told by content, not by name). Blank lines and a UTF-8 byte order mark are skipped. A broken record
/// calls `bad` with the reason; the default makes it an Error "file:line: why". Where an array ends too early
/// or its commas are missing, reading stops after that call.
void for_each_json_record(std::filesystem::path const& path,
                          std::function<void(nlohmann::json const&, RecordPlace const&)> const& row,
                          std::function<void(std::string const& why, RecordPlace const&)> const& bad = {});

/// The same of text in memory; `source` is the name in messages.
void for_each_json_record_in(std::string_view text, std::string const& source,
                             std::function<void(nlohmann::json const&, RecordPlace const&)> const& row,
                             std::function<void(std::string const& why, RecordPlace const&)> const& bad = {});

/// One JSON document (config.json, tokenizer.json, ...); errors name file, line and column.
nlohmann::json read_json(std::filesystem::path const& path);
/// The same of text in memory; `source` is the name in messages.
nlohmann::json parse_json(std::string_view text, std::string const& source);

}  // namespace fsllm
