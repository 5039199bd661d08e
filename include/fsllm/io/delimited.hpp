// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/io/jsonl.hpp"

namespace fsllm {

/// Records of fields with commas, semicolons or tabs between them (RFC 4180) in a stream that comes in
/// pieces: a field in quotes may hold separators, line ends and doubled quotes. Holds no more than the record
/// it is in. Empty lines and a UTF-8 byte order mark are skipped.
class DelimitedRecords {
 public:
  using Record = std::function<void(std::vector<std::string>&& fields, RecordPlace const&)>;

  /// `separator` 0: the one of , ; and tab that the first line has most of. A broken record (a quote that is
  /// never closed, text behind a closing quote, broken UTF-8, NUL) calls `bad` and is left out; where the
  /// limits are met, nothing more is read.
  DelimitedRecords(std::string source, char separator, Record record, JsonRecords::Bad bad,
                   RecordLimits limits = {});
  void feed(std::string_view piece);
  /// The stream is at its end; `problem` ("" for none) is why it is so too early.
  void finish(std::string const& problem = "");

 private:
  enum class State { begin, plain, quoted, behind_quote, broken, stopped };
  void take(std::string_view text);
  void take(char c);
  void begin_line();
  void end_field();
  void end_record();
  void refuse(std::string const& why);
  void stop(std::string const& why);

  char separator_;
  Record record_;
  JsonRecords::Bad bad_;
  RecordLimits limits_;
  RecordPlace place_;
  State state_ = State::begin;
  std::string first_line_;  ///< until its end has come, where a separator is looked for
  std::string field_;
  std::vector<std::string> fields_;
  int64_t line_ = 1, read_ = 0, held_ = 0;
  bool at_begin_ = true, has_field_ = false;
};

}  // namespace fsllm
