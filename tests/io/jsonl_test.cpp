// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/jsonl.hpp"

#include <zlib.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using nlohmann::json;
using test::TempDir;
using testing::ElementsAre;

/// "line:value of key a" of each record, and "line:bad" of each broken one.
std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  for_each_json_record_in(
      text, "f",
      [&](json const& record, RecordPlace const& place) {
        lines.push_back(std::to_string(place.line) + ":" + record["a"].dump());
      },
      [&](std::string const&, RecordPlace const& place) {
        lines.push_back(std::to_string(place.line) + ":bad");
      });
  return lines;
}

void read_strictly(std::string_view text) {
  for_each_json_record_in(text, "f", [](json const&, RecordPlace const&) {});
}

TEST(Jsonl, LinesWithBlanksMarkAndCarriageReturns) {
  EXPECT_THAT(lines_of("\xEF\xBB\xBF{\"a\":1}\r\n\r\n  {\"a\":\"x]\"}  \n{\"a\":3}"),
              ElementsAre("1:1", "3:\"x]\"", "4:3"));
  EXPECT_THAT(lines_of("\n\n{\"a\":1}\n"), ElementsAre("3:1"));
  EXPECT_THAT(lines_of(""), ElementsAre());
  EXPECT_THAT(lines_of(" \n\t\n"), ElementsAre());
}

TEST(Jsonl, ArrayElementsKnowTheirLines) {
  EXPECT_THAT(lines_of("[\n {\"a\": 1},\n {\"b\": \"]}\\\"{\",\n  \"a\": [2, {}]},\n\n {\"a\":3}\n]\n"),
              ElementsAre("2:1", "3:[2,{}]", "6:3"));
  EXPECT_THAT(lines_of("[]"), ElementsAre());
  EXPECT_THAT(lines_of("\n[ ]\n"), ElementsAre());
}

TEST(Jsonl, BrokenRecordsAreReportedAndSkipped) {
  EXPECT_THAT(lines_of("{\"a\":1}\n{\"a\":\n7\n{\"a\":4}"), ElementsAre("1:1", "2:bad", "3:bad", "4:4"));
  EXPECT_THAT(lines_of("[{\"a\":1},\n 5, {\"a\"\n: x},\n{\"a\":4}]"),
              ElementsAre("1:1", "2:bad", "3:bad", "4:4"));
  EXPECT_THAT(lines_of("[{\"a\":1},\n{\"a\":2"), ElementsAre("1:1", "2:bad", "2:bad"));
}

TEST(Jsonl, ErrorsSayFileLineAndWhy) {
  EXPECT_ERROR(read_strictly("{}\n{\"a\" 1}"), "f:2: syntax error");
  EXPECT_ERROR(read_strictly("{}\n[1]"), "f:2: expected a JSON object, found array");
  EXPECT_ERROR(read_strictly("{\"a\":\"\xff\"}"), "f:1: syntax error");
  EXPECT_ERROR(read_strictly("{}\n{\"a\":1e999}"), "f:2: number overflow parsing '1e999'");
  EXPECT_ERROR(read_strictly("[{}\n"), "f:2: the JSON array has no end");
  EXPECT_ERROR(read_strictly("["), "f:1: the JSON array has no end");
  EXPECT_ERROR(read_strictly("[{},]"), "f:1: a JSON object is missing");
  EXPECT_ERROR(read_strictly("[{}\n{}]"), "f:2: a comma is missing");
  EXPECT_ERROR(read_strictly("[{}]\n{}"), "f:2: there is text after the JSON array");
}

TEST(Jsonl, GzipIsToldByContent) {
  TempDir dir;
  auto const path = dir / "rows.jsonl";
  gzFile file = gzopen(path.c_str(), "wb");
  std::string text;
  for (int i = 0; i < 50000; ++i) text += "{\"a\":" + std::to_string(i) + "}\n";
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  int64_t sum = 0, last = 0;
  for_each_json_record(path, [&](json const& record, RecordPlace const& place) {
    sum += record["a"].get<int64_t>();
    last = place.line;
  });
  EXPECT_EQ(sum, int64_t{49999} * 25000);
  EXPECT_EQ(last, 50000);

  auto const bytes = read_file(path);
  write_file_atomic(path, bytes.substr(0, bytes.size() / 2));
  EXPECT_ERROR(for_each_json_record(path, [](json const&, RecordPlace const&) {}), path.string());
}

TEST(Jsonl, MissingFileIsAnError) {
  EXPECT_ERROR(for_each_json_record("absent.jsonl", [](json const&, RecordPlace const&) {}),
               "cannot read absent.jsonl");
  EXPECT_ERROR(read_json("absent.json"), "cannot read absent.json");
}

TEST(Json, OneDocument) {
  EXPECT_EQ(parse_json("\xEF\xBB\xBF{\"a\": [1, 2]}", "c")["a"][1], 2);
  EXPECT_ERROR(parse_json("{\n  \"a\": nul\n}", "config.json"), "config.json:2:11: syntax error");
  EXPECT_ERROR(parse_json("[1e999]", "config.json"), "config.json:1:1: number overflow parsing '1e999'");
  EXPECT_ERROR(parse_json("", "config.json"), "config.json is empty (a JSON document is needed)");
  EXPECT_ERROR(parse_json("{} x", "config.json"), "config.json:1:4: syntax error");
  // Deep nesting must not overflow the stack.
  EXPECT_ERROR(parse_json(std::string(1000000, '['), "deep"), "deep:1:1000001: syntax error");
  EXPECT_NO_THROW(parse_json(std::string(1000000, '[') + std::string(1000000, ']'), "deep"));
}

}  // namespace
}  // namespace fsllm
