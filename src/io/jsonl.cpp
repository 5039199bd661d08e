// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/jsonl.hpp"

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <vector>

#include "fsllm/core/error.hpp"
#include "fsllm/core/json_text.hpp"
#include "fsllm/io/unpack.hpp"
#include "json_reason.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int64_t newlines(std::string_view text) {
  return std::count(text.begin(), text.end(), '\n');
}

/// Does an object begin here whose end is not in this text?
bool is_cut(std::string_view text, size_t stopped_at) {
  auto const first = text.find_first_not_of(" \t\r");
  return first != text.npos && text[first] == '{' && stopped_at >= text.find_last_not_of(" \t\r") + 1;
}

/// A JSON value, and the first key that stands twice in one object.
struct Parsed {
  json value;
  std::optional<std::string> doubled;
};

Parsed parse_strictly(std::string_view text) {
  Parsed parsed;
  std::vector<std::unordered_set<std::string>> keys;
  auto const watch = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event != json::parse_event_t::key) return true;
    auto const& key = value.get_ref<std::string const&>();
    if (!keys.back().insert(key).second && !parsed.doubled) parsed.doubled = key;
    return true;
  };
  parsed.value = json::parse(text, watch);
  return parsed;
}

}  // namespace

std::string RecordPlace::text() const {
  return fmt::format("{}:{}{}", file, is_row ? "row " : "", line);
}

JsonRecords::JsonRecords(std::string source, Row row, Bad bad, Wanted wanted, RecordLimits limits)
    : place_{std::move(source), 1},
      row_(std::move(row)),
      bad_(std::move(bad)),
      wanted_(std::move(wanted)),
      limits_(limits) {}

/// Holds the begin of a record whose end is to come.
void JsonRecords::hold(std::string_view part) {
  if (std::cmp_greater(pending_.size() + part.size(), limits_.record_bytes)) too_long_ = true;
  if (!too_long_) pending_ += part;
  if (too_long_) std::string().swap(pending_);
}

bool JsonRecords::is_within_limits(std::string_view piece) {
  read_ += static_cast<int64_t>(piece.size());
  if (read_ <= limits_.file_bytes) return true;
  refuse(fmt::format("the file has more than {} bytes unpacked (data.max_file_bytes)", limits_.file_bytes));
  return false;
}

void JsonRecords::feed(std::string_view piece) {
  if (state_ == State::stopped || !is_within_limits(piece)) return;
  if (state_ == State::start) {
    if (pending_.empty() && piece.size() > kByteOrderMark.size()) return begin(piece);
    pending_ += piece;
    if (pending_.size() <= kByteOrderMark.size()) return;
    auto const head = std::move(pending_);
    pending_.clear();
    return begin(head);
  }
  state_ == State::lines ? feed_lines(piece) : feed_array(piece);
}

void JsonRecords::finish(std::string const& problem) {
  at_end_ = true;
  if (state_ == State::start && !pending_.empty()) {
    auto const head = std::move(pending_);
    pending_.clear();
    begin(head);
  }
  if (!problem.empty() && state_ != State::stopped) return refuse(problem);
  if (state_ == State::lines && (!pending_.empty() || too_long_)) end_record("");
  if (state_ == State::in_element) end_record("");
  if (state_ == State::before_element || state_ == State::after_element) refuse("the JSON array has no end");
}

/// Decides by the first character between lines and an array.
void JsonRecords::begin(std::string_view text) {
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    return refuse("the file is UTF-16, not UTF-8 (iconv -f UTF-16 -t UTF-8 converts it)");
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  auto const first = std::find_if_not(text.begin(), text.end(), is_space);
  if (first == text.end() || *first != '[') {
    // Blank beginnings stay undecided no longer than a piece; an array after 256 KiB of blanks is no array.
    state_ = State::lines;
    return feed_lines(text);
  }
  auto const skipped = static_cast<size_t>(first - text.begin());
  place_.line += newlines(text.substr(0, skipped));
  state_ = State::before_element;
  depth_ = -1;  // no element has been read: the array may end at once
  feed_array(text.substr(skipped + 1));
}

void JsonRecords::feed_lines(std::string_view piece) {
  for (size_t at = 0; at < piece.size();) {
    size_t const end = piece.find('\n', at);
    if (end == std::string_view::npos) return hold(piece.substr(at));
    end_record(piece.substr(at, end - at));
    ++place_.line;
    at = end + 1;
  }
}

void JsonRecords::feed_array(std::string_view piece) {
  for (size_t at = 0; at < piece.size() && state_ != State::stopped;) {
    if (state_ == State::in_element) {
      size_t const length = scan_element(piece.substr(at));
      if (state_ == State::in_element) {
        hold(piece.substr(at));
        if (too_long_) refuse_long();
        return;
      }
      end_record(piece.substr(at, length));
      at += length;
    } else if (is_space(piece[at])) {
      place_.line += piece[at++] == '\n';
    } else {
      auto const before = state_;
      step_between(piece[at]);
      if (before != State::before_element || state_ != State::in_element) ++at;
    }
  }
}

/// A character outside of elements that is no space.
void JsonRecords::step_between(char c) {
  if (state_ == State::after_array) return refuse("there is text after the JSON array");
  if (state_ == State::after_element) {
    if (c != ',' && c != ']') return refuse("a comma is missing between JSON objects");
    state_ = c == ',' ? State::before_element : State::after_array;
    return;
  }
  if (c == ']' && depth_ < 0) {
    state_ = State::after_array;
  } else if (c == ',' || c == ']' || c == '}') {
    refuse("a JSON object is missing");
  } else {
    depth_ = 0;
    in_string_ = escaped_ = false;
    state_ = State::in_element;
  }
}

/// Bytes up to the bracket that closes the element, or to the ',' or ']' behind one that has none (brackets
/// inside strings do not count). The element ends in this piece if the state is then after_element.
size_t JsonRecords::scan_element(std::string_view piece) {
  for (size_t i = 0; i < piece.size(); ++i) {
    char const c = piece[i];
    if (in_string_) {
      if (!escaped_ && c == '"') in_string_ = false;
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      if (--depth_ > 0) continue;
      state_ = State::after_element;
      return depth_ == 0 ? i + 1 : i;
    } else if (c == ',' && depth_ == 0) {
      state_ = State::after_element;
      return i;
    }
  }
  return piece.size();
}

/// The record is what is pending and `tail`.
void JsonRecords::end_record(std::string_view tail) {
  std::string joined;
  if (too_long_ || std::cmp_greater(pending_.size() + tail.size(), limits_.record_bytes))
    return refuse_long();
  if (!pending_.empty()) {
    joined = std::move(pending_) + std::string(tail);
    pending_.clear();
    tail = joined;
  }
  bool const in_lines = state_ == State::lines;
  if (!in_lines || !std::all_of(tail.begin(), tail.end(), is_space)) read_record(tail);
  if (in_lines) return;
  place_.line += newlines(tail);
  if (state_ == State::in_element) state_ = State::after_element;
  depth_ = 0;
}

void JsonRecords::read_record(std::string_view text) {
  bool const is_first = !std::exchange(has_record_, true);
  if (wanted_ && !wanted_()) return;
  if (auto const depth = json_depth(text); depth > kDeepestJson)
    return report(fmt::format("parsing ends at brackets that stand {} deep in one another ({} at most)",
                              depth, kDeepestJson),
                  place_.line);
  Parsed parsed;
  try {
    parsed = parse_strictly(text);
  } catch (json::exception const& error) {
    size_t const at = std::min(byte_of(error), text.size());
    bool const goes_on = state_ == State::lines && is_first && !at_end_ && is_cut(text, at);
    return report(reason(error) + (goes_on ? " (is the whole file one object around its rows? They are one "
                                             "object a line, or one array of objects)"
                                           : ""),
                  place_.line + newlines(text.substr(0, at)));
  }
  if (!parsed.value.is_object())
    return report(std::string("expected a JSON object, found ") + parsed.value.type_name(), place_.line);
  if (parsed.doubled) return report(fmt::format("key '{}' stands twice", *parsed.doubled), place_.line);
  place_.record = text;
  row_(parsed.value, place_);
  place_.record = {};
}

/// A line is passed over, an element of an array ends the reading.
void JsonRecords::refuse_long() {
  auto const why = fmt::format("a record of more than {} bytes (data.max_line_bytes)", limits_.record_bytes);
  pending_.clear();
  too_long_ = false;
  if (state_ != State::lines) return refuse(why);
  if (!wanted_ || wanted_()) report(why, place_.line);
}

/// The rest of the stream cannot be read.
void JsonRecords::refuse(std::string const& why) {
  state_ = State::stopped;
  if (!wanted_ || wanted_()) report(why, place_.line);
}

void JsonRecords::report(std::string const& why, int64_t line) const {
  FSLLM_CHECK(bad_, "{}:{}: {}. Correct it there.", place_.file, line, why);
  bad_(why, {place_.file, line});
}

void for_each_json_record(std::filesystem::path const& path, JsonRecords::Row const& row,
                          JsonRecords::Bad const& bad) {
  JsonRecords records(path.string(), row, bad);
  records.finish(unpack_file(path, [&](std::string_view piece) { records.feed(piece); }));
}

void for_each_json_record_in(std::string_view text, std::string const& source, JsonRecords::Row const& row,
                             JsonRecords::Bad const& bad) {
  JsonRecords records(source, row, bad);
  records.feed(text);
  records.finish();
}

}  // namespace fsllm
