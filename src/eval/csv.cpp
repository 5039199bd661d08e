// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/csv.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"

namespace fsllm {
namespace {

class CsvReader {
 public:
  CsvReader(std::string_view text, std::string const& source) : text_(text), source_(source) {}

  std::vector<CsvRecord> records() {
    std::vector<CsvRecord> found;
    while (at_ < text_.size()) {
      CsvRecord record{{}, line_};
      do record.fields.push_back(field());
      while (take(','));
      end_of_line();
      if (record.fields.size() > 1 || !record.fields.front().empty()) found.push_back(std::move(record));
    }
    return found;
  }

 private:
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::string field() {
    if (take('"')) return quoted();
    auto const end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    auto const plain = text_.substr(at_, end - at_);
    at_ = end;
    return std::string(plain);
  }
  std::string quoted() {
    auto const start = line_;
    std::string value;
    while (at_ < text_.size()) {
      char const c = text_[at_++];
      if (c == '"' && !take('"')) return value;
      if (c == '\n') ++line_;
      value += c;
    }
    fail(fmt::format("{}:{}: a quote that is never closed. Close it.", source_, start));
  }
  void end_of_line() {
    take('\r');
    FSLLM_CHECK(at_ >= text_.size() || text_[at_] == '\n',
                "{}:{}: text behind a closing quote (a comma or the end of the line is needed). Correct it.",
                source_, line_);
    if (take('\n')) ++line_;
  }
  std::string_view text_;
  std::string const& source_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

std::vector<CsvRecord> parse_csv(std::string_view text, std::string const& source) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  std::string buffer;
  FSLLM_CHECK(valid_utf8(text, buffer).data() == text.data(), "{}: not UTF-8 text. Convert it.", source);
  return CsvReader(text, source).records();
}

}  // namespace fsllm
