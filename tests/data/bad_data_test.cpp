// SPDX-License-Identifier: Apache-2.0
// Malformed data: each input is named with file and line, and skipped and counted only if asked for.
#include <zlib.h>

#include "data_fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/io/files.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

constexpr int kFatal = -1;  ///< an Error even under data.on_bad_row: skip

struct Bad {
  std::string name, file, bytes;
  int line;  ///< 0: accepted as it is
  std::string why;
  int rows;  ///< that are read, under skip
};

std::string const kGood = R"({"instruction":"i","output":"o"})";

/// The second line of three is `row`.
Bad row(std::string const& name, std::string const& row, std::string const& why) {
  return {name, "x.jsonl", kGood + "\n" + row + "\n" + kGood + "\n", 2, why, 2};
}

std::string cut(std::string const& bytes, size_t end) {
  return bytes.substr(0, bytes.size() - end);
}

std::string flipped(std::string bytes, size_t at) {
  bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
  return bytes;
}

std::string many_rows() {
  std::string text;
  for (int i = 0; i < 4000; ++i)
    text += R"({"instruction":")" + std::to_string(i * i) +
            R"(","output":"o"})"
            "\n";
  return text;
}

std::vector<Bad> broken_bytes() {
  return {
      row("utf8_continuation_missing", "{\"instruction\":\"\xC3(\",\"output\":\"o\"}", "ill-formed UTF-8"),
      row("utf8_overlong", "{\"instruction\":\"\xC0\xAF\",\"output\":\"o\"}", "ill-formed UTF-8"),
      row("utf8_surrogate", "{\"instruction\":\"\xED\xA0\x80\",\"output\":\"o\"}", "ill-formed UTF-8"),
      row("utf8_in_key", "{\"instr\xFF\":\"i\",\"output\":\"o\"}", "ill-formed UTF-8"),
      row("latin1", "{\"instruction\":\"caf\xE9\",\"output\":\"o\"}", "ill-formed UTF-8"),
      row("lone_high_surrogate", R"({"instruction":"\ud800","output":"o"})", "surrogate"),
      row("lone_low_surrogate", R"({"instruction":"\udc00 x","output":"o"})", "surrogate"),
      row("surrogates_swapped", R"({"instruction":"\ude00\ud83d","output":"o"})", "surrogate"),
      row("raw_nul", std::string("{\"instruction\":\"a\0b\",\"output\":\"o\"}", 34),
          "control character U+0000"),
      row("raw_tab_and_bell", "{\"instruction\":\"a\x07\",\"output\":\"o\"}", "control character U+0007"),
      row("escape_unknown", R"({"instruction":"\x41","output":"o"})", "forbidden character after backslash"),
      row("utf16", std::string("{\0\"\0a\0\"\0}\0", 10), "parsing"),
      {"bom", "x.jsonl", "\xEF\xBB\xBF" + kGood + "\n", 0, "", 1},
      {"bom_array", "x.json", "\xEF\xBB\xBF[" + kGood + "]", 0, "", 1},
      {"crlf", "x.jsonl", kGood + "\r\n" + kGood + "\r\n\r\n", 0, "", 2},
      {"no_last_newline", "x.jsonl", kGood + "\n" + kGood, 0, "", 2},
      {"line_of_10_mb", "x.jsonl",
       R"({"instruction":")" + std::string(10 << 20, 'a') + R"(","output":"o"})" + "\n" + kGood, 0, "", 2},
      {"broken_line_of_10_mb", "x.jsonl", R"({"instruction":")" + std::string(10 << 20, 'a') + "\n" + kGood,
       1, "missing closing quote", 1},
  };
}

std::vector<Bad> broken_rows() {
  std::string deep = R"({"instruction":"i","output":)";
  for (int i = 0; i < 2000; ++i) deep += "[";
  return {
      row("cut_short", R"({"instruction":"i","outp)", "missing closing quote"),
      row("single_quotes", "{'instruction':'i'}", "parsing"),
      row("trailing_comma", R"({"instruction":"i","output":"o",})", "parsing"),
      row("two_on_a_line", kGood + kGood, "expected end of input"),
      row("a_number", "7", "expected a JSON object, found number"),
      row("an_array", "[1]", "expected a JSON object, found array"),
      row("a_text", "\"i\"", "expected a JSON object, found string"),
      row("nan", R"({"instruction":"i","output":NaN})", "parsing"),
      row("number_too_large", R"({"instruction":"i","output":"o","x":1e999})", "number overflow"),
      row("key_twice", R"({"instruction":"i","output":"o","output":"p"})", "key 'output' stands twice"),
      row("key_twice_inside", R"({"instruction":"i","output":"o","x":{"a":1,"a":2}})",
          "key 'a' stands twice"),
      row("nested_answer", R"({"instruction":"i","output":{"text":"o"}})",
          "field 'output' is not a text but a JSON object"),
      row("deeply_nested", deep, "parsing"),
      row("field_missing", R"({"instruction":"i","response":"o"})",
          "field 'output' is missing (the row has: instruction, response)"),
      row("no_field", "{}", "field 'instruction' is missing"),
      row("wrong_type", R"({"instruction":5,"output":"o"})",
          "field 'instruction' is not a text but a JSON number"),
      row("null_answer", R"({"instruction":"i","output":null})", "field 'output' is missing"),
      row("category_is_a_list", R"({"instruction":"i","output":"o","category":["c"]})",
          "field 'category' is not a name but a JSON array"),
      row("text_is_a_number", R"({"text":3})", "field 'text' is not a text but a JSON number"),
  };
}

std::vector<Bad> broken_chats() {
  return {
      row("no_messages", R"({"messages":[]})", "field 'messages' is an empty list"),
      row("messages_is_a_text", R"({"messages":"hello"})", "field 'messages' is not a list of messages"),
      row("message_is_a_text", R"({"messages":["hello"]})",
          "messages[0]: is not an object but a JSON string"),
      row("wrong_role", R"({"messages":[{"role":"user","content":"a"},{"role":"robot","content":"b"}]})",
          "messages[1]: role = 'robot' is none of system, user, assistant"),
      row("role_missing", R"({"messages":[{"content":"a"}]})", "messages[0]: field 'role' is missing"),
      row("content_is_null", R"({"messages":[{"role":"assistant","content":null}]})",
          "messages[0]: field 'content' is missing"),
      row("content_in_parts", R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})",
          "messages[0]: field 'content' is not a text but a JSON array"),
      row("sharegpt_role", R"({"conversations":[{"from":"gtp","value":"a"}]})",
          "conversations[0]: from = 'gtp' is none of system, human, user, gpt"),
      row("no_rejected", R"({"prompt":"p","chosen":"c"})", "field 'rejected' is missing"),
      row("no_prompt", R"({"chosen":"c","rejected":"r"})", "field 'prompt' is missing"),
      row("labels_missing", R"({"input_ids":[1,2]})", "field 'labels' is missing"),
      row("label_of_another_token", R"({"input_ids":[1,2],"labels":[1,3]})",
          "labels[1] = 3 is neither -100 nor"),
  };
}

std::vector<Bad> broken_files() {
  auto const gz = test::gzip(many_rows());
  auto const zip = test::zip({{"python/final/jsonl/train/python_train_0.jsonl.gz", gz}});
  return {
      {"empty", "x.jsonl", "", 0, "x.jsonl has no rows (it is empty)", kFatal},
      {"only_blanks", "x.jsonl", " \n\r\n\n", 0, "x.jsonl has no rows (it is empty)", kFatal},
      {"empty_array", "x.json", "[]", 0, "x.json has no rows (it is empty)", kFatal},
      {"empty_gzip", "x.jsonl", test::gzip(""), 0, "x.jsonl has no rows (it is empty)", kFatal},
      {"utf16_with_a_mark", "x.jsonl", std::string("\xFF\xFE{\0\"\0a\0", 8), 1,
       "the file is UTF-16, not UTF-8", kFatal},
      {"array_without_end", "x.json", "[" + kGood + ",\n" + kGood, 2, "the JSON array has no end", 2},
      {"array_without_comma", "x.json", "[" + kGood + "\n" + kGood + "]", 2, "a comma is missing", 1},
      {"array_with_two_commas", "x.json", "[" + kGood + ",,\n" + kGood + "]", 1, "a JSON object is missing",
       1},
      {"text_after_array", "x.json", "[" + kGood + "]\n]", 2, "there is text after the JSON array", 1},
      {"gzip_cut", "x.jsonl.gz", cut(gz, 4), 4001, "the gzip stream ends too early. Copy the file again",
       4000},
      {"gzip_cut_in_the_head", "x.jsonl.gz", gz.substr(0, 5), 1, "the gzip stream ends too early", kFatal},
      {"gzip_checksum", "x.jsonl.gz", flipped(gz, gz.size() - 6), 4001, "the gzip stream is damaged", 4000},
      {"gzip_foreign_tail", "x.jsonl.gz", gz + "PK", 4001, "the gzip stream", 4000},
      {"zip_cut", "python.zip", cut(zip, 30), 0, "python.zip: not a whole zip archive", kFatal},
      {"zip_is_html", "python.zip", "<html>404</html>", 0, "python.zip: not a whole zip archive", kFatal},
      {"zip_of_other_files", "python.zip", test::zip({{"a.txt", "a"}}), 0, "no .jsonl or .jsonl.gz under",
       kFatal},
      {"text_with_nul", "x.txt", std::string("a\n\nb\0b\n\nc", 9), 3, "a NUL byte (this is no text)", 2},
      {"text_with_broken_utf8", "x.txt", "a\n\nb\xFF\n\nc", 3, "broken UTF-8", 2},
  };
}

std::string message_of(DataConfig const& config) {
  try {
    read_samples(config);
  } catch (Error const& error) {
    return error.what();
  }
  return "";
}

class BadData : public testing::TestWithParam<Bad> {};

TEST_P(BadData, IsNamedOrSkipped) {
  auto const& bad = GetParam();
  test::TempDir folder;
  write_file_atomic(folder / bad.file, bad.bytes);
  DataConfig config;
  config.root = folder.path().string();
  config.types = {bad.file.ends_with(".zip") ? "code_search_net@llm" : bad.file};
  auto const place =
      (folder / bad.file).string() + (bad.line > 0 ? ":" + std::to_string(bad.line) + ": " : "");
  if (!bad.why.empty()) {
    EXPECT_ERROR(read_samples(config), bad.why);
    EXPECT_ERROR(read_samples(config), place);
    EXPECT_LT(message_of(config).size(), 600U);
    if (bad.line > 0) EXPECT_ERROR(read_samples(config), ", or set data.on_bad_row: skip.");
    config.on_bad_row = "skip";
  }
  if (bad.rows == kFatal) {
    EXPECT_ERROR(read_samples(config), "");
    return;
  }
  int64_t skipped = -1;
  EXPECT_EQ(read_samples(config, &skipped).size(), static_cast<size_t>(bad.rows));
  EXPECT_EQ(skipped > 0, bad.line > 0);
  EXPECT_LE(skipped, 2);
}

std::string name_of(testing::TestParamInfo<Bad> const& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Bytes, BadData, testing::ValuesIn(broken_bytes()), name_of);
INSTANTIATE_TEST_SUITE_P(Rows, BadData, testing::ValuesIn(broken_rows()), name_of);
INSTANTIATE_TEST_SUITE_P(Chats, BadData, testing::ValuesIn(broken_chats()), name_of);
INSTANTIATE_TEST_SUITE_P(Files, BadData, testing::ValuesIn(broken_files()), name_of);

}  // namespace
}  // namespace fsllm
