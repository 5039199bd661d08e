// SPDX-License-Identifier: Apache-2.0
// The command lines of all programs: stray words are named, values are taken literally.
#include <fstream>

#include "bad_input.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

class AllCommandLines : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Programs, AllCommandLines,
                         testing::Values("fsllm_hpc", "fsllm_shard", "fsllm_eval", "fsllm_export",
                                         "fsllm_inspect", "fsllm_serve", "fsllm_chat", "fsllm_sweep"),
                         [](auto const& test) { return test.param; });

TEST_P(AllCommandLines, TellWhatTheyAre) {
  TempDir dir;
  for (int const np : {0, 2}) {
    std::vector<std::string> helps;
    for (auto const* option : {"--help", "-h"}) {
      auto const outcome = run(dir.path(), np, {GetParam(), option});
      EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
      helps.push_back(outcome.out);
    }
    EXPECT_EQ(helps[0], helps[1]);
    EXPECT_THAT(helps[0], testing::HasSubstr("  " + GetParam() + " "));
    EXPECT_EQ(helps[0].find("Options"), helps[0].rfind("Options"));
    auto const version = run(dir.path(), np, {GetParam(), "--version"});
    EXPECT_EQ(version.exit_code, 0) << version.err;
    EXPECT_THAT(version.out, testing::StartsWith(GetParam() + " "));
    EXPECT_THAT(version.out, testing::HasSubstr("LibTorch"));
  }
}

TEST_P(AllCommandLines, NameStrayWordsAndUnknownOptions) {
  TempDir dir;
  for (int const np : {0, 2}) {
    expect_message(run(dir.path(), np, {GetParam(), "--hepl"}), "--hepl is no option of " + GetParam());
    expect_message(run(dir.path(), np, {GetParam(), "-x"}), "-x");
    if (GetParam() == "fsllm_inspect" || GetParam() == "fsllm_sweep") continue;
    expect_message(run(dir.path(), np, {GetParam(), "stray"}), "stray");
  }
}

class Literal : public testing::Test {
 protected:
  Literal() {
    write_text_model(dir_ / "model");
    std::ofstream rows(dir_ / "rows.jsonl");
    for (int i = 0; i < 24; ++i)
      rows << R"({"instruction": "Add )" << i << R"(.", "input": "", "output": ")" << 2 * i << "\"}\n";
    rows.close();
    config_ =
        write_config(dir_.path(), "outdir: " + (dir_ / "exp").string() + "\nmodel: {type: " +
                                      (dir_ / "model").string() + "}\ndata: {root: " + dir_.path().string() +
                                      ", type: rows.jsonl, splits: [0.8, 0.1, 0.1], prompt_template: plain}\n"
                                      "federate: {client_num: 3, total_round_num: 1}\n"
                                      "train: {local_update_steps: 1}\n"
                                      "llm: {tok_len: 60, adapter: {use: True, args: [{r: 2}]}}\n")
            .string();
  }
  Outcome with(Words words) const {
    words.insert(words.begin() + 1, {"--cfg", config_});
    return run(dir_.path(), 0, words);
  }
  std::string printed(Words words) const {
    words.insert(words.begin(), {"fsllm_hpc", "--print-config"});
    auto const outcome = with(words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  }
  nlohmann::json shards(fs::path const& out) const {
    auto const shown = run(dir_.path(), 0, {"fsllm_inspect", out.string(), "--json"});
    return shown.exit_code == 0 ? nlohmann::json::parse(shown.out).at("clients") : nlohmann::json::array();
  }
  TempDir dir_;
  std::string config_;
};

/// A shell leaves "~" alone behind "=".
TEST_F(Literal, PathsOfOptionsKnowTheHomeAndVariables) {
  setenv("FSLLM_TEST_PLACE", reference_dir("llama").c_str(), 1);
  for (auto const& words : {std::vector<std::string>{"fsllm_inspect", "$FSLLM_TEST_PLACE"},
                            {"fsllm_export", "--to=merged", "--model=$FSLLM_TEST_PLACE",
                             "--adapter=${FSLLM_TEST_PLACE}/adapter", "--out", (dir_ / "merged").string()}}) {
    auto const outcome = run(dir_.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  unsetenv("FSLLM_TEST_PLACE");
  auto const outcome = run(dir_.path(), 0, {"fsllm_inspect", "$FSLLM_TEST_PLACE/x"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, testing::HasSubstr("the environment has no variable"));
}

TEST_F(Literal, NamesOfRuns) {
  for (auto const* name : {"run #2", "%j", "a: b", "[draft", "{x}"}) {
    auto const outcome = with({"fsllm_hpc", "expname", name});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_TRUE(fs::exists(dir_ / "exp" / name / "summary.json")) << name;
  }
}

TEST_F(Literal, WildcardsAndPrompts) {
  EXPECT_EQ(with({"fsllm_hpc", "--check", "data.type", "ro*.jsonl"}).exit_code, 0);
  EXPECT_EQ(with({"fsllm_hpc", "--check", "data.type=*.jsonl"}).exit_code, 0);
  auto const made = run(dir_.path(), 0,
                        {"fsllm_shard", "--data", "ro*.jsonl", "--root", dir_.path().string(), "--model",
                         (dir_ / "model").string(), "--clients", "2", "--splitter", "iid", "--out",
                         (dir_ / "s").string(), "llm.tok_len", "60", "data.prompt_template", "plain"});
  EXPECT_EQ(made.exit_code, 0) << made.err;
  auto const shown = with({"fsllm_shard", "--preview", "1", "data.prompt_template", "custom",
                           "data.custom_template.prompt", "### Q: {instruction}"});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, testing::HasSubstr("### Q: Add 0."));
}

TEST_F(Literal, ListsMayHoldBlanks) {
  for (Words const& given :
       {Words{"data.splits", "[0.5, 0.5, 0]"}, Words{"data.splits", "[0.5,", "0.5,", "0]"},
        Words{"data.splits=[0.5,", "0.5,", "0]", "seed", "5"},
        Words{"llm.adapter.args", "[{r:", "2}]", "data.splits", "[0.5,0.5,0]"}})
    EXPECT_THAT(printed(given), testing::HasSubstr("splits: [0.5, 0.5, 0]"));
  EXPECT_THAT(printed({"expname", "[a", "seed", "5"}), testing::HasSubstr("seed: 5"));
}

TEST_F(Literal, ShardingTakesKeysToo) {
  auto const made = with({"fsllm_shard", "--out", (dir_ / "s").string(), "federate.client_num", "7"});
  EXPECT_EQ(made.exit_code, 0) << made.err;
  EXPECT_EQ(shards(dir_ / "s").size(), 7U);
  auto const both =
      with({"fsllm_shard", "--out", (dir_ / "t").string(), "--set", "seed=5", "federate.client_num=2"});
  EXPECT_EQ(both.exit_code, 0) << both.err;
  EXPECT_EQ(shards(dir_ / "t").size(), 2U);
  expect_message(with({"fsllm_shard", "--out", (dir_ / "u").string(), "federate.client_num"}),
                 "federate.client_num stands alone on the command line");
  expect_message(with({"fsllm_shard", "--out", (dir_ / "u").string(), "federate.clent_num", "3"}),
                 "Did you mean 'federate.client_num'?");
}

TEST_F(Literal, KeysWithoutAValueAreSaid) {
  std::ofstream(config_, std::ios::app) << "eval:\n  freq:\nexpname:\nseed: ~\n";
  auto const outcome = with({"fsllm_hpc", "--check"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, testing::HasSubstr("eval.freq: nothing stands behind it, its default is used: 1"));
  EXPECT_THAT(outcome.out, testing::HasSubstr("seed: nothing stands behind it, its default is used: 0"));
  EXPECT_THAT(outcome.out, testing::Not(testing::HasSubstr("expname: nothing")));
}

/// The session folder of Open MPI would have one name for all programs of a user that were started alone,
/// which they would make and remove under each other. They make none: here it could not be made.
TEST(CommandLine, ProgramsAloneShareNoSessionFolder) {
  TempDir dir;
  write_text_model(dir / "model");
  char const* const before = std::getenv("TMPDIR");
  std::string const kept = before != nullptr ? before : "";
  ASSERT_EQ(::setenv("TMPDIR", "/dev/null/none", 1), 0);
  auto const outcome = run(dir.path(), 0, {"fsllm_inspect", (dir / "model").string()});
  before != nullptr ? ::setenv("TMPDIR", kept.c_str(), 1) : ::unsetenv("TMPDIR");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
}

}  // namespace
}  // namespace fsllm::test
