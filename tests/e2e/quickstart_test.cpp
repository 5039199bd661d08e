// SPDX-License-Identifier: Apache-2.0
// The quickstart: its data, its configuration, exact match over ranks, and its training with a small budget
// on the real model where that is at hand.
#include <fmt/core.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "federation.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

/// FSLLM_DEMO_MODEL, or where tools/bootstrap.sh --with-demo-model puts it; empty: it is not there.
fs::path demo_model() {
  if (char const* given = std::getenv("FSLLM_DEMO_MODEL"); given != nullptr) return given;
  auto const fetched = source_file(".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf");
  return fs::exists(fetched) ? fetched : fs::path();
}

TEST(Quickstart, CommittedDataIsWhatTheScriptMakes) {
  TempDir dir;
  auto const script = source_file("datasets/quickstart/make_quickstart.py").string();
  ASSERT_EQ(std::system(fmt::format("python3 '{}' '{}'", script, dir.path().string()).c_str()), 0);
  for (auto const* name : {"train.jsonl", "test.jsonl"}) {
    auto const committed = read_text(source_file("datasets/quickstart") / name);
    EXPECT_GT(committed.size(), 10000U);
    EXPECT_TRUE(read_text(dir / name) == committed)
        << name << " is not what make_quickstart.py makes. Run it and commit both.";
  }
}

TEST(Quickstart, NoTestInputWasTrainedOn) {
  std::set<std::string> trained;
  for (auto const& row : read_events(source_file("datasets/quickstart/train.jsonl")))
    trained.insert(row.at("input").get<std::string>());
  EXPECT_EQ(trained.size(), 1040U);
  for (auto const& row : read_events(source_file("datasets/quickstart/test.jsonl")))
    EXPECT_EQ(trained.count(row.at("input")), 0U) << row;
}

/// The quickstart on a tiny random model: every step of jobs/quickstart.sh but the result.
class QuickstartSteps : public testing::Test {
 protected:
  QuickstartSteps() { write_text_model(dir_ / "model", 256); }
  Outcome hpc(int np, std::vector<std::string> const& more) {
    std::vector<std::string> words{"fsllm_hpc",
                                   "--cfg",
                                   source_file("configs/quickstart.yaml").string(),
                                   "model.type",
                                   (dir_ / "model").string(),
                                   "data.root",
                                   source_file("datasets/quickstart").string(),
                                   "outdir",
                                   dir_.path().string(),
                                   "hpc.stage_dir",
                                   (dir_ / "weights").string()};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  Outcome evaluate(int np, std::string const& out, std::vector<std::string> const& more) {
    std::vector<std::string> words{"fsllm_eval",
                                   "--model",
                                   (dir_ / "model").string(),
                                   "--data",
                                   source_file("datasets/quickstart").string(),
                                   "--tasks",
                                   "test.jsonl",
                                   "--prompt_template",
                                   "plain",
                                   "--limit",
                                   "21",
                                   "--out",
                                   (dir_ / out).string()};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  TempDir dir_;
};

TEST_F(QuickstartSteps, ConfigurationIsAccepted) {
  auto const outcome = hpc(0, {"--check"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  EXPECT_THAT(outcome.out, testing::HasSubstr("4 clients"));
}

TEST_F(QuickstartSteps, AnswersDoNotDependOnRanks) {
  auto const trained = hpc(2, {"federate.total_round_num", "1", "train.local_update_steps", "1"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
  std::vector<std::string> const candidates{
      "--base", "--adapter", "one=" + (dir_ / "quickstart/adapter").string(), "--examples", "2"};
  auto const alone = evaluate(0, "alone", candidates), three = evaluate(3, "three", candidates);
  ASSERT_EQ(alone.exit_code, 0) << alone.err << alone.out;
  ASSERT_EQ(three.exit_code, 0) << three.err << three.out;
  auto const a = read_events(dir_ / "alone/predictions.jsonl"),
             b = read_events(dir_ / "three/predictions.jsonl");
  ASSERT_EQ(a.size(), 21U);
  ASSERT_EQ(b.size(), 21U);
  EXPECT_EQ(read_text(dir_ / "alone/predictions.jsonl"), read_text(dir_ / "three/predictions.jsonl"));
  EXPECT_EQ(read_text(dir_ / "alone/results.json"), read_text(dir_ / "three/results.json"));
  EXPECT_NE(a[0].at("answers").at("base").at("loss_sum"), a[0].at("answers").at("one").at("loss_sum"));
  auto const results = nlohmann::json::parse(read_text(dir_ / "three/results.json"));
  EXPECT_EQ(results.at("base").at("rows"), 21);
  int64_t rows = 0;
  for (auto const& [category, sum] : results.at("one").at("categories").items())
    rows += sum.at("rows").get<int>();
  EXPECT_EQ(rows, 21);
  EXPECT_THAT(three.out, testing::HasSubstr("                           exact match      loss a token\n"
                                            "                rows     base      one     base      one\n"
                                            "archive "));
  EXPECT_THAT(three.out, testing::HasSubstr("\nexpected  "));
}

TEST_F(QuickstartSteps, MistakesAreExplained) {
  auto const refused = [&](std::vector<std::string> const& more, std::string const& message) {
    auto const outcome = evaluate(0, "out", more);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
  };
  refused({"--base", "--adapter", "base=x"}, "two are called 'base'");
  refused({"--adapter", (dir_ / "none").string()}, "none");
  auto const task = run(
      dir_.path(), 0, {"fsllm_eval", "--model", (dir_ / "model").string(), "--tasks", "mmlu", "--out", "o"});
  EXPECT_EQ(task.exit_code, 2);
  EXPECT_THAT(task.err,
              testing::HasSubstr("no questions in ./mmlu/test (MMLU lies there as SUBJECT_test.csv"));
}

TEST(QuickstartModel, ExactMatchRises) {
  auto const model = demo_model();
  if (model.empty())
    GTEST_SKIP() << "no demo model: run tools/bootstrap.sh --with-demo-model, or set FSLLM_DEMO_MODEL";
  TempDir dir;
  setenv("XDG_CACHE_HOME", dir.path().c_str(), 1);  // where fsllm_eval unpacks the weights
  auto const data = source_file("datasets/quickstart").string();
  auto const trained = run(
      dir.path(), 2,
      {"fsllm_hpc", "--cfg", source_file("configs/quickstart.yaml").string(), "model.type", model.string(),
       "data.root", data, "outdir", dir.path().string(), "hpc.stage_dir", (dir / "weights").string(),
       "federate.total_round_num", "3", "eval.freq", "3", "train.local_update_steps", "4"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
  auto const asked = run(dir.path(), 2,
                         {"fsllm_eval", "--model", model.string(), "--base", "--adapter",
                          (dir / "quickstart/adapter").string(), "--tasks", "test.jsonl", "--data", data,
                          "--prompt_template", "plain", "--limit", "40", "--out", (dir / "out").string()});
  ASSERT_EQ(asked.exit_code, 0) << asked.err << asked.out;
  auto const results = nlohmann::json::parse(read_text(dir / "out/results.json"));
  auto const &base = results.at("base"), &adapter = results.at("adapter");
  EXPECT_LE(base.at("exact_match").get<double>(), 0.05);
  EXPECT_GE(adapter.at("exact_match").get<double>(), 0.25) << asked.out;
  EXPECT_LT(adapter.at("loss_per_token").get<double>(), 0.2 * base.at("loss_per_token").get<double>());
}

}  // namespace
}  // namespace fsllm::test
