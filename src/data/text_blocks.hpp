// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "fsllm/io/jsonl.hpp"

namespace fsllm {

/// Blocks of lines between blank lines of a plain text that comes in pieces. Line ends are \n or \r\n; a byte
/// order mark is skipped. A block that is no UTF-8 text calls `bad`.
class TextBlocks {
 public:
  TextBlocks(std::string source, std::function<void(std::string&&, RecordPlace const&)> block,
             JsonRecords::Bad bad, JsonRecords::Wanted wanted, RecordLimits limits = {});
  void feed(std::string_view piece);
  void finish(std::string const& problem);

 private:
  void stop(std::string const& why);
  void end_line();
  void end_block();
  RecordPlace place_;
  std::function<void(std::string&&, RecordPlace const&)> block_;
  JsonRecords::Bad bad_;
  JsonRecords::Wanted wanted_;
  RecordLimits limits_;
  int64_t read_ = 0;      ///< bytes
  bool stopped_ = false;  ///< the limits are met
  std::string line_, text_;
  int64_t line_number_ = 1;
};

}  // namespace fsllm
