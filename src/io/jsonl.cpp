// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/jsonl.hpp"

#include <zlib.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

std::string_view without_bom(std::string_view text) {
  return text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text;
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int64_t newlines(std::string_view text) {
  return std::count(text.begin(), text.end(), '\n');
}

/// nlohmann's "[json.exception...] parse error at line 1, column 5: reason" without its preamble.
std::string reason(json::exception const& error) {
  std::string_view const what = error.what();
  for (std::string_view before : {"column ", "] "}) {
    auto const at = what.find(before);
    if (at == std::string::npos) continue;
    auto const end = before == "] " ? at + before.size() : what.find(": ", at) + 2;
    return std::string(what.substr(end));
  }
  return std::string(what);
}

/// Where parsing stopped, in bytes; numbers beyond double (json::out_of_range) have no place.
size_t byte_of(json::exception const& error) {
  auto const* const parse = dynamic_cast<json::parse_error const*>(&error);
  return parse != nullptr ? parse->byte : 0;
}

std::string unzip(std::filesystem::path const& path) {
  std::unique_ptr<gzFile_s, decltype(&gzclose_r)> file(gzopen(path.c_str(), "rb"), &gzclose_r);
  FSLLM_CHECK(file, "cannot read {} (zlib cannot open it). Check the path.", path.string());
  std::string text;
  std::vector<char> block(size_t{1} << 18);
  int got = 0;
  while ((got = gzread(file.get(), block.data(), static_cast<unsigned>(block.size()))) > 0)
    text.append(block.data(), static_cast<size_t>(got));
  int code = Z_OK;
  std::string const message = gzerror(file.get(), &code);
  FSLLM_CHECK(got == 0 && (code == Z_OK || code == Z_STREAM_END),
              "cannot unpack {} ({}). Copy the file again.", path.string(), message);
  return text;
}

/// Walks the records of one text and hands each to `row` or `bad`.
class RecordReader {
 public:
  using Row = std::function<void(json const&, RecordPlace const&)>;
  using Bad = std::function<void(std::string const&, RecordPlace const&)>;
  RecordReader(std::string_view text, std::string const& source, Row const& row, Bad const& bad)
      : text_(without_bom(text)), row_(row), bad_(bad), place_{source, 1} {}

  void run() {
    skip_space();
    if (at_end()) return;
    if (text_[position_] == '[') {
      ++position_;
      read_array();
    } else {
      read_lines();
    }
  }

 private:
  void read_lines() {
    position_ = text_.rfind('\n', position_) + 1;  // npos + 1 = 0: the first line
    for (; !at_end(); ++place_.line) {
      size_t const end = std::min(text_.find('\n', position_), text_.size());
      auto const line = text_.substr(position_, end - position_);
      if (!std::all_of(line.begin(), line.end(), is_space)) read_record(line);
      position_ = end + 1;
    }
  }

  void read_array() {
    skip_space();
    if (!at_end() && text_[position_] == ']') return finish_array();
    while (true) {
      skip_space();
      size_t const length = element_length();
      if (length == 0) return refuse(at_end() ? "the JSON array has no end" : "a JSON object is missing");
      auto const element = text_.substr(position_, length);
      read_record(element);
      place_.line += newlines(element);
      position_ += length;
      skip_space();
      if (at_end()) return refuse("the JSON array has no end");
      char const next = text_[position_];
      if (next == ']') return finish_array();
      if (next != ',') return refuse("a comma is missing between JSON objects");
      ++position_;
    }
  }

  void finish_array() {
    ++position_;
    skip_space();
    if (!at_end()) refuse("there is text after the JSON array");
  }

  /// Bytes up to the ',' or ']' that ends the element at position_ (brackets inside strings do not count).
  size_t element_length() const {
    int64_t depth = 0;
    bool in_string = false;
    size_t i = position_;
    for (; i < text_.size(); ++i) {
      char const c = text_[i];
      if (in_string) {
        if (c == '\\') ++i;
        if (c == '"') in_string = false;
      } else if (c == '"') {
        in_string = true;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (c == '}' || c == ']') {
        if (depth == 0) break;
        if (--depth == 0) return i + 1 - position_;
      } else if (c == ',' && depth == 0) {
        break;
      }
    }
    return std::min(i, text_.size()) - position_;
  }

  void read_record(std::string_view text) {
    json record;
    try {
      record = json::parse(text);
    } catch (json::exception const& error) {
      size_t const at = std::min(byte_of(error), text.size());
      return report(reason(error), place_.line + newlines(text.substr(0, at)));
    }
    if (!record.is_object())
      return report(std::string("expected a JSON object, found ") + record.type_name(), place_.line);
    row_(record, place_);
  }

  void refuse(std::string const& why) { report(why, place_.line); }

  void report(std::string const& why, int64_t line) {
    FSLLM_CHECK(bad_, "{}:{}: {}", place_.file, line, why);
    bad_(why, {place_.file, line});
  }

  void skip_space() {
    for (; !at_end() && is_space(text_[position_]); ++position_) place_.line += text_[position_] == '\n';
  }

  bool at_end() const { return position_ >= text_.size(); }

  std::string_view text_;
  Row const& row_;
  Bad const& bad_;
  RecordPlace place_;
  size_t position_ = 0;
};

}  // namespace

void for_each_json_record(std::filesystem::path const& path, RecordReader::Row const& row,
                          RecordReader::Bad const& bad) {
  MappedFile const file(path);
  if (file.text().starts_with("\x1f\x8b"))
    for_each_json_record_in(unzip(path), path.string(), row, bad);
  else
    for_each_json_record_in(file.text(), path.string(), row, bad);
}

void for_each_json_record_in(std::string_view text, std::string const& source, RecordReader::Row const& row,
                             RecordReader::Bad const& bad) {
  RecordReader(text, source, row, bad).run();
}

json read_json(std::filesystem::path const& path) {
  return parse_json(read_file(path), path.string());
}

json parse_json(std::string_view text, std::string const& source) {
  text = without_bom(text);
  try {
    return json::parse(text);
  } catch (json::exception const& error) {
    size_t const at = byte_of(error);
    auto const before = text.substr(0, std::min(at > 0 ? at - 1 : 0, text.size()));
    auto const column = before.size() - (before.rfind('\n') + 1) + 1;
    FSLLM_CHECK(text.find_first_not_of(" \t\r\n") != std::string_view::npos,
                "{} is empty (a JSON document is needed). Copy the file again.", source);
    fail(fmt::format("{}:{}:{}: {}. Correct it, or copy the file again.", source, newlines(before) + 1,
                     column, reason(error)));
  }
}

}  // namespace fsllm
