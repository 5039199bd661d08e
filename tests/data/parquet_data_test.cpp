// SPDX-License-Identifier: Apache-2.0
// Parquet data files: the same samples as from JSON lines, and how malformed ones are named.
#include "fsllm/core/error.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/io/files.hpp"
#include "parquet_writer.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using nlohmann::json;
using test::parquet;

class ParquetData : public testing::Test {
 protected:
  ParquetData() { config_.root = folder_.path().string(); }
  void write(std::string const& name, std::string const& bytes) { write_file_atomic(folder_ / name, bytes); }
  std::vector<Sample> read(std::string const& type) {
    config_.types = {type};
    return read_samples(config_, &skipped_);
  }
  test::TempDir folder_;
  DataConfig config_;
  int64_t skipped_ = 0;
};

std::vector<json> rows_of_every_form() {
  std::vector<json> rows;
  for (auto const* text :
       {R"({"instruction":"i","input":null,"output":"o","category":"c"})",
        R"({"instruction":"é","input":"in","output":""})",
        R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a"}]})",
        R"({"conversations":[{"from":"human","value":"u"},{"from":"gpt","value":"a"}],"category":"d"})",
        R"({"prompt":"p","chosen":"c","rejected":"r"})", R"({"text":"t"})",
        R"({"input_ids":[1,2],"labels":[-100,2]})"})
    rows.push_back(json::parse(text));
  return rows;
}

std::string named_with_meaning(Sample const& sample) {
  std::string text = fmt::format("{} {}|{}|{}|{}|{}|{} {} {}", static_cast<int>(sample.kind), sample.record,
                                 sample.instruction, sample.input, sample.output, sample.rejected,
                                 sample.category, sample.ids.size(), sample.owner);
  for (auto const& message : sample.messages) text += "|" + message.role + ":" + message.content;
  return text;
}

std::vector<std::string> named_with_meaning(std::vector<Sample> const& samples) {
  std::vector<std::string> lines;
  for (auto const& sample : samples) lines.push_back(named_with_meaning(sample));
  return lines;
}

TEST_F(ParquetData, EveryFormOfRowIsReadAsFromJsonLines) {
  auto const rows = rows_of_every_form();
  std::string lines;
  for (auto const& row : rows) lines += row.dump() + "\n";
  write("x.jsonl", lines);
  write("x.parquet", parquet(rows, {2}));
  auto const samples = read("x.parquet");
  EXPECT_EQ(named_with_meaning(samples), named_with_meaning(read("x.jsonl")));
  EXPECT_THAT(samples.at(6).place, testing::EndsWith("x.parquet:row 7"));
}

TEST_F(ParquetData, KnownSetsAreFoundInTheHubsForm) {
  write("gsm8k_train.parquet", parquet({{{"question", "q"}, {"answer", "a #### 2"}}}));
  write("alpaca_data.parquet",
        parquet({{{"instruction", "i"}, {"input", ""}, {"output", "o"}, {"text", "unused"}}}));
  EXPECT_EQ(read("gsm8k@llm").at(0).output, "a The answer is 2");
  EXPECT_EQ(read("alpaca@llm").at(0).instruction, "i");
  write("gsm8k_train.jsonl", R"({"question":"q","answer":"of the published file"})");
  EXPECT_EQ(read("gsm8k@llm").at(0).output, "of the published file");
}

TEST_F(ParquetData, WildcardsByFileAndNatural) {
  for (auto const* name : {"part-10.parquet", "part-2.parquet"})
    write(name, parquet({{{"text", name}, {"who", 7}}, {{"text", name}, {"who", 8}}}, {1}));
  config_.splitter = "by_file";
  auto rows = read("part-*.parquet");
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[1].owner + rows[2].owner, "part-2.parquetpart-10.parquet");
  EXPECT_EQ(rows[3].record, 3);
  config_.splitter = "natural";
  config_.natural_field = "who";
  rows = read("part-*.parquet");
  EXPECT_EQ(rows[2].owner + rows[3].owner, "78");
  config_.natural_field = "whom";
  EXPECT_ERROR(read("part-2.parquet"),
               "part-2.parquet:row 1: field 'whom' is missing (the row has: text, who)");
}

TEST_F(ParquetData, UnwantedRowsArePassedOver) {
  std::vector<json> all;
  for (int i = 0; i < 10; ++i) all.push_back({{"text", std::to_string(i)}});
  for (auto const* name : {"a.parquet", "b.parquet"}) write(name, parquet(all, {3}));
  config_.types = {"?.parquet"};
  std::vector<std::string> seen;
  auto const counts = for_each_sample(
      config_, [&](Sample&& sample) { seen.push_back(std::to_string(sample.record) + ":" + sample.output); },
      [](int64_t record) { return record % 9 == 4; });
  EXPECT_THAT(seen, testing::ElementsAre("4:4", "13:3"));
  EXPECT_EQ(counts.rows, 2);
  EXPECT_EQ(for_each_sample(
                config_, [](Sample&&) {}, [](int64_t) { return false; })
                .rows,
            0);
}

TEST_F(ParquetData, BadRowsAreNamedOrSkipped) {
  write("x.parquet",
        parquet({{{"instruction", "i"}, {"output", "o"}}, {{"instruction", "i"}}, {{"text", "t"}}}));
  EXPECT_ERROR(read("x.parquet"),
               "x.parquet:row 2: field 'output' is missing (the row has: instruction, output, text). Correct "
               "the row, or "
               "set data.on_bad_row: skip.");
  config_.on_bad_row = "skip";
  EXPECT_EQ(read("x.parquet").size(), 2U);
  EXPECT_EQ(skipped_, 1);
  config_.on_bad_row = "error";
  write("gsm8k_train.parquet", parquet({{{"question", 5}, {"answer", "a"}}}));
  EXPECT_ERROR(read("gsm8k@llm"),
               "gsm8k_train.parquet:row 1: field 'question' is not a text but a JSON number.");
  write("gsm8k_train.parquet", parquet({{{"problem", "p"}, {"solution", "s"}}}));
  EXPECT_ERROR(read("gsm8k@llm"), "row 1: field 'question' is missing (the row has: problem, solution)");
}

TEST_F(ParquetData, ADamagedRowGroupIsNamedOrSkipped) {
  std::vector<json> rows;
  for (int i = 0; i < 30; ++i) rows.push_back({{"text", "row " + std::to_string(i) + "."}});
  auto bytes = parquet(rows, {10, false});
  auto const at = bytes.find("row 15.");
  ASSERT_NE(at, std::string::npos);
  bytes[at - 1] = '\x7f';  // a length
  write("x.parquet", bytes);
  EXPECT_ERROR(read("x.parquet"), "x.parquet:row 11: the Parquet rows 11 to 20 cannot be read (");
  EXPECT_ERROR(read("x.parquet"), "). Copy the file again, or set data.on_bad_row: skip.");
  config_.on_bad_row = "skip";
  auto const read_rows = read("x.parquet");
  EXPECT_EQ(read_rows.size(), 20U);
  EXPECT_EQ(skipped_, 10);
  EXPECT_EQ(read_rows.at(10).output + std::to_string(read_rows.at(10).record), "row 20.20");
}

TEST_F(ParquetData, OtherFiles) {
  write("x.parquet", parquet({}));
  EXPECT_ERROR(read("x.parquet"), "x.parquet: not a whole Parquet file (it has no columns)");
  write("x.parquet.gz", "x");
  EXPECT_ERROR(read("x.parquet.gz"),
               "(Parquet is packed by itself, and not read inside gzip). Unpack it with gunzip");
  EXPECT_ERROR(read("y.parquet"),
               "y.parquet is missing (data.type = y.parquet). Correct data.root or data.type.");
  std::filesystem::copy_file(test::source_file("tests/fuzz/corpus/parquet/no_rows.parquet"),
                             folder_ / "none.parquet");
  EXPECT_ERROR(read("none.parquet"), "none.parquet has no rows (it is empty). Check the file.");
}

}  // namespace
}  // namespace fsllm
