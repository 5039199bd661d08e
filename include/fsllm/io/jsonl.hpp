// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace fsllm {

/// Where a record came from, for messages.
struct RecordPlace {
  std::string file;
  int64_t line = 0;              ///< from 1
  bool is_row = false;           ///< of a table, which has no lines
  std::string_view record = {};  ///< its JSON as written, as long as the callback runs
  /// "train.jsonl:17", or "train.parquet:row 17".
  std::string text() const;
};

/// What a stream of records may take: memory is needed for one record, time for all of them.
struct RecordLimits {
  int64_t record_bytes = int64_t{1} << 26;  ///< a line, or an element of an array
  int64_t file_bytes = int64_t{1} << 36;    ///< of a file, unpacked
};

/// Records of a stream that comes in pieces: JSON lines, or one JSON array of objects. Holds no more than a
/// piece and the record it is in. Blank lines and a UTF-8 byte order mark are skipped.
class JsonRecords {
 public:
  using Row = std::function<void(nlohmann::json const&, RecordPlace const&)>;
  using Bad = std::function<void(std::string const& why, RecordPlace const&)>;
  /// Asked once for each record, in order, before it is parsed; no: it is passed over.
  using Wanted = std::function<bool()>;

  /// `row` gets each JSON object. A broken record (broken UTF-8, no object, a key that stands twice ...)
  /// calls `bad`; without it, it is an Error "source:line: why". Where an array ends too early or its commas
  /// are missing, or the limits are met, reading stops after that call (behind a line that is too long it
  /// goes on).
  JsonRecords(std::string source, Row row, Bad bad = {}, Wanted wanted = {}, RecordLimits limits = {});
  void feed(std::string_view piece);
  /// The stream is at its end; `problem` ("" for none) is why it is so too early.
  void finish(std::string const& problem = "");

 private:
  enum class State { start, lines, before_element, in_element, after_element, after_array, stopped };
  void begin(std::string_view text);
  void feed_lines(std::string_view piece);
  void feed_array(std::string_view piece);
  size_t scan_element(std::string_view piece);
  void step_between(char c);
  void end_record(std::string_view tail);
  void read_record(std::string_view text);
  void refuse(std::string const& why);
  void report(std::string const& why, int64_t line) const;
  bool is_within_limits(std::string_view piece);
  void hold(std::string_view part);
  void refuse_long();

  RecordPlace place_;
  Row row_;
  Bad bad_;
  Wanted wanted_;
  RecordLimits limits_;
  int64_t read_ = 0;       ///< bytes
  bool too_long_ = false;  ///< the record, of which nothing is held then
  State state_ = State::start;
  std::string pending_;  ///< begin of a record whose end has not come yet
  int64_t depth_ = 0;
  bool at_end_ = false;      ///< no more pieces come
  bool has_record_ = false;  ///< one has been met
  bool in_string_ = false, escaped_ = false;
};

/// Calls `row` for each JSON object of a file, plain or gzip; see JsonRecords.
void for_each_json_record(std::filesystem::path const& path, JsonRecords::Row const& row,
                          JsonRecords::Bad const& bad = {});

/// The same of text in memory; `source` is the name in messages.
void for_each_json_record_in(std::string_view text, std::string const& source, JsonRecords::Row const& row,
                             JsonRecords::Bad const& bad = {});

/// One JSON document (config.json, tokenizer.json, ...); errors name file, line and column.
nlohmann::json read_json(std::filesystem::path const& path);
/// The same of text in memory; `source` is the name in messages.
nlohmann::json parse_json(std::string_view text, std::string const& source);

}  // namespace fsllm
