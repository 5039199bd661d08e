// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/dataset.hpp"

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

/// Reads `text` as the file `name`.
class Dataset : public testing::Test {
 protected:
  std::vector<Sample> read(std::string const& name, std::string const& text) {
    write_file_atomic(folder_ / name, text);
    config_.root = folder_.path().string();
    if (config_.types.empty()) config_.types = {name};
    return read_samples(config_, &skipped_);
  }
  /// The message for a file whose second line is this row.
  void expect_bad(std::string const& row, std::string const& why) {
    SCOPED_TRACE(row);
    std::string const good = R"({"instruction":"i","output":"o","client":1})";
    EXPECT_ERROR(read("x.jsonl", good + "\n" + row + "\n"), "x.jsonl:2: ");
    EXPECT_ERROR(read("x.jsonl", good + "\n" + row + "\n"), why);
    config_.on_bad_row = "skip";
    EXPECT_EQ(read("x.jsonl", good + "\n" + row + "\n" + good).size(), 2U);
    EXPECT_EQ(skipped_, 1);
    config_.on_bad_row = "error";
  }
  test::TempDir folder_;
  DataConfig config_;
  int64_t skipped_ = -1;
};

TEST_F(Dataset, CustomRowsWithAndWithoutInput) {
  auto const rows = read("x.jsonl", R"({"instruction":"i","input":"x","output":"o","category":"c"}
{"instruction":"j","output":"p"}
{"instruction":"k","input":null,"output":"","category":7,"more":[1]})");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].instruction + rows[0].input + rows[0].output + rows[0].category, "ixoc");
  EXPECT_EQ(rows[1].input + rows[1].category, "");
  EXPECT_EQ(rows[2].input + rows[2].output + rows[2].category, "7");
  EXPECT_THAT(rows[2].place, testing::EndsWith("x.jsonl:3"));
  EXPECT_EQ(skipped_, 0);
}

TEST_F(Dataset, FsLlmTrainsOnNone) {
  config_.compat = true;
  auto const rows =
      read("x.json", R"([{"instruction":"j","output":"p"}, {"instruction":"k","input":"","output":"p"}])");
  EXPECT_EQ(rows[0].input, "None");
  EXPECT_EQ(rows[1].input, "");
}

TEST_F(Dataset, NamedDataSetsHaveTheirOwnFields) {
  config_.types = {"gsm8k@llm"};
  auto const gsm8k = read("gsm8k_train.jsonl", R"({"question":"q","answer":"1+1\n#### 2"})");
  EXPECT_EQ(gsm8k[0].instruction, "q");
  EXPECT_EQ(gsm8k[0].output, "1+1\nThe answer is 2");
  config_.types = {"dolly-15k@llm"};
  auto const dolly = read("databricks-dolly-15k.jsonl",
                          R"({"instruction":"i","context":"x","response":"o","category":"open_qa"})");
  EXPECT_EQ(dolly[0].input + dolly[0].output + dolly[0].category, "xoopen_qa");
  config_.types = {"alpaca@llm"};
  EXPECT_EQ(read("alpaca_data.json", R"([{"instruction":"i","input":"","output":"o"}])")[0].output, "o");
  config_.types = {"alpaca_cleaned@llm"};
  EXPECT_EQ(read("alpaca_data_cleaned.json", R"([{"instruction":"i","input":"","output":"o"}])")[0].output,
            "o");
}

TEST_F(Dataset, TokenRows) {
  auto const rows = read("x.jsonl", R"({"input_ids":[3,4,5],"labels":[-100,4,5],"category":"a"})");
  EXPECT_EQ(rows[0].kind, SampleKind::tokens);
  EXPECT_EQ(rows[0].ids, (std::vector<int32_t>{3, 4, 5}));
  EXPECT_EQ(rows[0].is_target, (std::vector<uint8_t>{0, 1, 1}));
  EXPECT_EQ(rows[0].category, "a");
}

TEST_F(Dataset, BadRowsAreNamedOrSkipped) {
  expect_bad("{\"instruction\": \"i\", \"output\"", "");
  expect_bad("7", "expected a JSON object");
  expect_bad(R"({"instruction":"i","response":"o"})",
             "field 'output' is missing (the row has: instruction, response)");
  expect_bad(R"({"output":"o"})", "field 'instruction' is missing");
  expect_bad(R"({"instruction":5,"output":"o"})", "field 'instruction' is not a text but a JSON number");
  expect_bad(R"({"instruction":"i","output":["o"]})", "field 'output' is not a text but a JSON array");
  expect_bad(R"({"instruction":"i","output":null})", "field 'output' is missing");
  expect_bad(R"({"instruction":"i","input":{},"output":"o"})",
             "field 'input' is not a text but a JSON object");
  expect_bad(R"({"instruction":"i","output":"o","category":[]})",
             "field 'category' is not a name but a JSON array");
  expect_bad("{\"instruction\":\"\xFF\",\"output\":\"o\"}", "");
  expect_bad(R"({"instruction":"\ud800","output":"o"})", "");
  expect_bad(R"({"input_ids":[1,2]})", "field 'labels' is missing");
  expect_bad(R"({"input_ids":[1,2],"labels":[1]})", "not two lists of the same length");
  expect_bad(R"({"input_ids":[1,2],"labels":[1,3]})", "labels[1] = 3 is neither -100 nor input_ids[1] = 2");
  expect_bad(R"({"input_ids":[1,-2],"labels":[1,-2]})", "input_ids[1] = -2 is not a token id");
  expect_bad(R"({"input_ids":[1.5],"labels":[1]})",
             "input_ids[0] = 1.5, labels[0] = 1 are not whole numbers");
  config_.splitter = "natural";
  config_.natural_field = "client";
  expect_bad(R"({"instruction":"i","output":"o"})", "field 'client' is missing");
}

TEST_F(Dataset, MissingFilesSayWhatToPutWhere) {
  EXPECT_ERROR(read("x.jsonl", ""), "x.jsonl has no rows (it is empty)");
  config_.types = {"y.json"};
  EXPECT_ERROR(read_samples(config_),
               "y.json is missing (data.type = y.json). Correct data.root or data.type.");
  config_.types = {"dolly-15k@llm"};
  EXPECT_ERROR(read_samples(config_), "databricks-dolly-15k.jsonl is missing");
  EXPECT_ERROR(read_samples(config_), "published at https://raw.githubusercontent.com/databrickslabs/dolly/");
  EXPECT_ERROR(read_samples(config_), "datasets/fetch.sh dolly-15k does it");
  config_.types = {"doly-15k@llm"};
  EXPECT_ERROR(read_samples(config_), "Did you mean 'dolly-15k@llm'?");
  config_.types.clear();
  EXPECT_ERROR(read_samples(config_), "data.type is not set");
  config_.on_bad_row = "skip";
  EXPECT_ERROR(read("z.jsonl", "{}\n"), "or every row is bad");
}

TEST(DataConfig, ReadsItsKeys) {
  auto config = Config::parse(R"(
data: {root: d, type: x.json, splitter: lda, splitter_args: [{alpha: 0.05}], splits: [0.9, 0.1, 0.0]}
llm: {tok_len: 64}
)",
                              "run.yaml");
  auto const data = load_data_config(config);
  EXPECT_EQ(data.root + data.type() + data.splitter + data.truncate, "dx.jsonldaprompt_left");
  EXPECT_EQ(data.alpha, 0.05);
  EXPECT_EQ(data.tok_len, 64);
  EXPECT_NO_THROW(config.finish());
}

TEST(DataConfig, CompatTurnsTruncationRound) {
  auto config = Config::parse("compat: {fsllm: True}", "run.yaml");
  EXPECT_EQ(load_data_config(config).truncate, "answer_right");
  auto given = Config::parse("{compat: {fsllm: True}, data: {truncate: drop}}", "run.yaml");
  EXPECT_EQ(load_data_config(given).truncate, "drop");
}

TEST(DataConfig, RefusesImpossibleValues) {
  auto const load = [](std::string const& yaml) {
    auto config = Config::parse(yaml, "run.yaml");
    load_data_config(config);
  };
  EXPECT_ERROR(load("data: {splits: [0.9, 0.1]}"), "data.splits has 2 entries");
  EXPECT_ERROR(load("data: {splits: [0.9, 0.1, 0.1]}"), "add up to 1.1");
  EXPECT_ERROR(load("data: {splits: [1.5, -0.5, 0]}"), "data.splits");
  EXPECT_ERROR(load("data: {splitter: ldaa}"), "data.splitter = 'ldaa'");
  EXPECT_ERROR(load("data: {splitter: natural}"),
               "data.splitter = natural (data.splitter_args names no field)");
  EXPECT_ERROR(load("data: {splitter_args: [{alpha: 0}]}"), "alpha = 0");
  EXPECT_ERROR(load("data: {subsample: 0.0}"), "data.subsample = 0");
  EXPECT_ERROR(load("data: {on_bad_row: ignore}"), "data.on_bad_row = 'ignore'");
  EXPECT_ERROR(load("llm: {tok_len: 1}"), "llm.tok_len = 1");
}

}  // namespace
}  // namespace fsllm
