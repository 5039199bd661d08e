// SPDX-License-Identifier: Apache-2.0
// Fields beside the text of a row: honoured or refused by name.
#include <nlohmann/json.hpp>

#include "data_fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/text/encode.hpp"
#include "fsllm/text/template.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

class RowFields : public testing::Test {
 protected:
  std::vector<Sample> read(std::string const& text, std::string const& file = "x.jsonl") {
    config_.root = folder_.path();
    config_.types = {file};
    write_file_atomic(folder_ / file, text);
    return read_samples(config_);
  }
  Sample row(std::string const& fields) { return read("{" + fields + "}\n").front(); }
  void refused(std::string const& fields, std::string const& why) {
    EXPECT_ERROR(row(fields), "x.jsonl:1: " + why);
  }
  /// "role: content" of each turn, those that are not learnt in brackets.
  std::string turns(std::string const& fields) {
    std::string all;
    for (auto const& [role, content, learnt] : row(fields).messages)
      all +=
          (all.empty() ? "" : " | ") + (learnt ? role + ": " + content : "(" + role + ": " + content + ")");
    return all;
  }
  test::TempDir folder_;
  DataConfig config_;
};

std::string const kRow = R"("instruction":"i","input":"x","output":"o",)";
std::string const kChat = R"({"role":"user","content":"u"},{"role":"assistant","content":"a")";

TEST_F(RowFields, SystemAndHistoryMakeAChat) {
  EXPECT_EQ(turns(kRow + R"("system":"s","history":[["q","r"],["q2","r2"]])"),
            "system: s | user: q | assistant: r | user: q2 | assistant: r2 | user: i\n\nx | assistant: o");
  EXPECT_EQ(turns(kRow + R"("history":[["q","r"]])"), "user: q | assistant: r | user: i\n\nx | assistant: o");
  EXPECT_EQ(turns(kRow + R"("system":"s")"), "system: s | user: i\n\nx | assistant: o");
  for (auto const* nothing : {R"("system":"","history":[])", R"("system":null,"history":null)"})
    EXPECT_EQ(row(kRow + nothing).kind, SampleKind::instruction);
  EXPECT_EQ(turns(R"("messages":[)" + kChat + R"(}],"system":"s")"), "system: s | user: u | assistant: a");
  EXPECT_EQ(
      turns(R"("conversations":[{"from":"human","value":"u"},{"from":"gpt","value":"a"}],"system":"s")"),
      "system: s | user: u | assistant: a");
  EXPECT_EQ(turns(R"("prompt":"p","chosen":"c","rejected":"r","system":"s")"),
            "system: s | user: p | assistant: c");
  refused(R"("messages":[{"role":"system","content":"t"},)" + kChat + R"(}],"system":"s")",
          "field 'system' and");
  refused(R"("messages":[)" + kChat + R"(}],"history":[["q","r"]])", "field 'history' beside");
  refused(R"("text":"t","system":"s")", "field 'system' in a row that is no chat");
  refused(R"("input_ids":[1,2],"labels":[1,2],"history":[["q","r"]])", "field 'history' in a row");
  refused(kRow + R"("history":[["q"]])", "history[0] is not a pair of texts");
  refused(kRow + R"("history":"q")", "field 'history' is not a list");
  refused(kRow + R"("system":3)", "field 'system' is not a text");
}

TEST_F(RowFields, AnswersOfWeightZeroAreNotLearnt) {
  EXPECT_EQ(turns(R"("messages":[)" + kChat + R"(,"weight":0},)" + kChat + R"(,"weight":1}])"),
            "user: u | (assistant: a) | user: u | assistant: a");
  EXPECT_EQ(turns(R"("messages":[)" + kChat + R"(,"train":false},)" + kChat + R"(,"train":true}])"),
            "user: u | (assistant: a) | user: u | assistant: a");
  EXPECT_EQ(
      turns(
          R"("messages":[{"role":"user","content":"u","weight":0},{"role":"assistant","content":"a","loss":null}])"),
      "(user: u) | assistant: a");
  refused(R"("messages":[)" + kChat + R"(,"weight":0.5}])",
          "messages[1]: field 'weight' = 0.5 is neither 0 nor 1");
  refused(R"("messages":[{"role":"user","content":"u","train":true}])",
          "messages[0]: a turn of user is to be learnt");
  refused(kRow + R"("weight":2)", "field 'weight' = 2 is neither 0 nor 1");
  refused(kRow + R"("train":false)", "a row that is not to be learnt");
  EXPECT_EQ(row(kRow + R"("weight":1.0,"train":true)").output, "o");
}

TEST_F(RowFields, WhatIsNotLearntIsNotScored) {
  auto const sample = row(R"("messages":[)" + kChat + R"(,"weight":0},{"role":"user","content":"v"},)" +
                          R"({"role":"assistant","content":"b"}])");
  TemplateConfig config;
  auto const scored = [&](std::string const& name) {
    config.name = name;
    std::string text;
    struct NoTokens : Tokenizer {
      std::vector<int32_t> encode(std::string_view, bool) const override { return {}; }
      std::vector<int32_t> prefix() const override { return {}; }
      std::string decode(std::vector<int32_t> const&, bool) const override { return ""; }
      int64_t vocab_size() const override { return 0; }
      std::optional<int32_t> bos_id() const override { return {}; }
      std::optional<int32_t> eos_id() const override { return {}; }
      std::optional<int32_t> pad_id() const override { return {}; }
      std::optional<int32_t> token_id(std::string_view) const override { return {}; }
      std::string piece(int32_t) const override { return ""; }
      std::string sha256() const override { return ""; }
    } const tokenizer;
    for (auto const& part : chat_segments(make_prompt_template(config), sample, tokenizer))
      if (part.scored) text += "<" + part.text + ">";
    return text;
  };
  EXPECT_EQ(scored("chatml"), "<b<|im_end|>>");
  config.chat_template = (folder_ / "t.jinja").string();
  write_file_atomic(config.chat_template,
                    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% "
                    "endgeneration %}{% else %}[{{ m.content }}]{% endif %}{% endfor %}");
  EXPECT_EQ(scored("model"), "<b>");
  write_file_atomic(config.chat_template,
                    "{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% "
                    "endgeneration %}");
  EXPECT_ERROR(scored("model"), "marks 1 parts by {% generation %} for 2 answers");
}

TEST_F(RowFields, WhatWouldChangeARowIsRefused) {
  for (auto const* field :
       {"tools", "functions", "images", "videos", "audios", "chat_template_kwargs", "tool_calls"})
    refused(kRow + "\"" + field + "\":[{\"a\":1}]", fmt::format("field '{}' is not read here", field));
  for (auto const* field :
       {"tool_calls", "function_call", "tool_call_id", "images", "reasoning_content", "thinking"})
    refused(R"("messages":[)" + kChat + ",\"" + field + "\":\"x\"}]",
            fmt::format("messages[1]: field '{}' is not read here", field));
  refused(R"("messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]}])",
          "messages[0]: field 'tool_calls'");
  EXPECT_EQ(turns(R"("messages":[)" + kChat +
                  R"(,"tool_calls":[],"reasoning_content":"","images":null}],"tools":[])"),
            "user: u | assistant: a")
      << "tables write what a row lacks as nothing";
}

TEST_F(RowFields, MasksOfTokenRowsMustSayNothing) {
  std::string const tokens = R"("input_ids":[3,4],"labels":[-100,4],)";
  EXPECT_EQ(row(tokens + R"("attention_mask":[1,1],"token_type_ids":[0,0],"position_ids":[])").ids.size(),
            2U);
  refused(tokens + R"("attention_mask":[1,0])", "attention_mask[1] = 0 (only 1 is known");
  refused(tokens + R"("attention_mask":[1])", "attention_mask is not a list as long as input_ids");
  refused(tokens + R"("token_type_ids":[0,1])", "token_type_ids[1] = 1");
  refused(tokens + R"("loss_mask":[0,1])", "loss_mask[0] = 0");
  refused(tokens + R"("position_ids":[0,1])", "field 'position_ids' is not read here");
}

TEST_F(RowFields, AnObjectAroundTheRowsIsNamed) {
  EXPECT_ERROR(
      read("{\n \"version\": \"1\",\n \"data\": [\n  {\"instruction\": \"a\", \"output\": \"b\"}\n ]\n}\n",
           "x.json"),
      "is the whole file one object around its rows?");
  EXPECT_ERROR(read(R"({"version":"1","data":[{"instruction":"a","output":"b"}]})", "x.json"),
               "is it one object around the rows of the file?");
  EXPECT_EQ(read("[\n {\n  \"instruction\": \"a\",\n  \"output\": \"b\"\n }\n]\n", "x.json").size(), 1U);
}

TEST_F(RowFields, LinesAndFilesAreBounded) {
  std::string const good = R"({"instruction":"i","output":"o"})";
  config_.limits.record_bytes = 100;
  EXPECT_EQ(read(good + "\n" + good + "\n").size(), 2U);
  auto const long_row = R"({"instruction":")" + std::string(300000, 'x') + R"(","output":"o"})";
  EXPECT_ERROR(read(good + "\n" + long_row + "\n" + good),
               "x.jsonl:2: a record of more than 100 bytes (data.max_line_bytes)");
  EXPECT_ERROR(read("[" + long_row + "]", "x.json"), "x.json:1: a record of more than 100 bytes");
  EXPECT_ERROR(read(test::gzip(std::string(50000000, 'x')), "x.jsonl.gz"), "a record of more than 100 bytes");
  EXPECT_ERROR(read(std::string(5000, 'x'), "x.txt"),
               "x.txt:1: a block of more than 100 bytes (data.max_line_bytes)");
  config_.on_bad_row = "skip";
  EXPECT_EQ(read(good + "\n" + long_row + "\n" + good + "\n").size(), 2U) << "the line alone is passed over";
  config_.on_bad_row = "error";
  config_.limits = {};
  config_.limits.file_bytes = 1000000;
  EXPECT_ERROR(read(test::gzip(std::string(2000000, '\n')), "x.jsonl.gz"),
               "the file has more than 1000000 bytes unpacked (data.max_file_bytes)");
  EXPECT_ERROR(read(std::string(2000000, '\n'), "x.txt"), "the file has more than 1000000 bytes");
}

TEST_F(RowFields, DeepAndWideRowsTakeNoLongerThanTheirBytes) {
  refused(R"("instruction":)" + std::string(200000, '[') + std::string(200000, ']') + R"(,"output":"o")",
          "parsing ends at brackets that stand 200001 deep in one another (200 at most)");
  std::string wide = R"("instruction":"i","output":"o")";
  for (int i = 0; i < 320000; ++i) wide += fmt::format(",\"k{}\":1", i);
  EXPECT_EQ(row(wide).output, "o");
  refused(wide + ",\"k7\":2", "key 'k7' stands twice");
}

}  // namespace
}  // namespace fsllm
