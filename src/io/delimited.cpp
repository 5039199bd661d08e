// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/delimited.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "fsllm/core/utf8.hpp"

namespace fsllm {
namespace {

constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";

/// Of those outside quotes.
char most_frequent_separator(std::string_view line) {
  char best = ',';
  int64_t most = 0;
  for (char const separator : {',', ';', '\t'}) {
    bool quoted = false;
    int64_t count = 0;
    for (char const c : line) {
      if (c == '"') quoted = !quoted;
      count += !quoted && c == separator ? 1 : 0;
    }
    if (count > most) best = separator;
    most = std::max(most, count);
  }
  return best;
}

}  // namespace

DelimitedRecords::DelimitedRecords(std::string source, char separator, Record record, JsonRecords::Bad bad,
                                   RecordLimits limits)
    : separator_(separator),
      record_(std::move(record)),
      bad_(std::move(bad)),
      limits_(limits),
      place_{std::move(source), 1} {}

void DelimitedRecords::feed(std::string_view piece) {
  read_ += static_cast<int64_t>(piece.size());
  if (read_ > limits_.file_bytes) {
    place_.line = line_;
    return stop(
        fmt::format("the file has more than {} bytes unpacked (data.max_file_bytes)", limits_.file_bytes));
  }
  if (!at_begin_) return take(piece);
  first_line_ += piece;
  if (first_line_.find('\n') != std::string::npos ||
      std::cmp_greater(first_line_.size(), limits_.record_bytes))
    begin_line();
}

/// The first line is there.
void DelimitedRecords::begin_line() {
  at_begin_ = false;
  auto text = std::string_view(first_line_);
  if (text.starts_with(kUtf8Mark)) text.remove_prefix(kUtf8Mark.size());
  if (separator_ == 0) separator_ = most_frequent_separator(text.substr(0, text.find('\n')));
  take(text);
  first_line_.clear();
}

void DelimitedRecords::take(std::string_view text) {
  for (char const c : text) {
    if (state_ == State::stopped) return;
    take(c);
  }
}

void DelimitedRecords::take(char c) {
  if (fields_.empty() && !has_field_ && state_ == State::begin) place_.line = line_;
  if (c == '\n') ++line_;
  if (++held_ > limits_.record_bytes)
    return stop(fmt::format("a record of more than {} bytes (data.max_line_bytes)", limits_.record_bytes));
  if (state_ == State::quoted) {
    if (c == '"')
      state_ = State::behind_quote;
    else
      field_ += c;
    return;
  }
  if (state_ == State::behind_quote && c == '"') {
    field_ += c;
    state_ = State::quoted;
    return;
  }
  if (c == '\n') return end_record();
  if (state_ == State::broken) return;
  if (c == separator_) return end_field();
  if (state_ == State::begin && c == '"') {
    state_ = State::quoted;
    has_field_ = true;
    return;
  }
  if (state_ == State::behind_quote) {
    if (c == '\r') return;
    return refuse("text behind a closing quote (a separator or the end of the line is needed)");
  }
  state_ = State::plain;
  has_field_ = true;
  field_ += c;
}

void DelimitedRecords::end_field() {
  fields_.push_back(std::move(field_));
  field_.clear();
  has_field_ = true;
  state_ = State::begin;
}

void DelimitedRecords::end_record() {
  if (state_ == State::plain && field_.ends_with('\r')) field_.pop_back();
  bool const empty = fields_.empty() && field_.empty() && state_ != State::behind_quote;
  bool const broken = state_ == State::broken;
  end_field();
  auto fields = std::move(fields_);
  fields_.clear();
  has_field_ = false;
  held_ = 0;
  if (empty || broken) return;
  std::string buffer;
  for (auto const& field : fields) {
    if (field.find('\0') != std::string::npos) return bad_("a NUL byte (this is no text)", place_);
    if (valid_utf8(field, buffer).data() != field.data()) return bad_("broken UTF-8", place_);
  }
  record_(std::move(fields), place_);
}

/// The rest of the line is passed over.
void DelimitedRecords::refuse(std::string const& why) {
  state_ = State::broken;
  bad_(why, place_);
}

void DelimitedRecords::stop(std::string const& why) {
  if (state_ == State::stopped) return;
  state_ = State::stopped;
  bad_(why, place_);
}

void DelimitedRecords::finish(std::string const& problem) {
  if (at_begin_) begin_line();
  if (state_ == State::stopped) return;
  if (state_ == State::quoted) return stop(problem.empty() ? "a quote that is never closed" : problem);
  if (has_field_ && problem.empty()) end_record();
  if (!problem.empty()) stop(problem);
}

}  // namespace fsllm
