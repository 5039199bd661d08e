// SPDX-License-Identifier: Apache-2.0
// Our tasks against lm-evaluation-harness' hf backend, item by item, on a real trained model.
#include <fmt/core.h>

#include <cmath>
#include <cstdlib>

#include "process.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class LmEval : public testing::Test {
 protected:
  void SetUp() override {
    FSLLM_NEED_TEST_DATA("models/stories260K");
    char const* python = std::getenv("FSLLM_TEST_PYTHON");
    if (python == nullptr || *python == '\0') GTEST_SKIP() << "no Python with lm_eval (FSLLM_TEST_PYTHON)";
    python_ = python;
    if (std::system(fmt::format("{} -c 'import lm_eval' 2> /dev/null", python_).c_str()) != 0)
      GTEST_SKIP() << "no lm_eval in the Python of FSLLM_TEST_PYTHON";
    call(fmt::format("prepare {} {}", test_data("models/stories260K").string(), (dir_ / "model").string()));
  }
  std::string call(std::string const& words) {
    auto const out = dir_ / "theirs.json", log = dir_ / "python.txt";
    auto const command =
        fmt::format("{} {} {} > {} 2> {}", python_, source_file("tests/e2e/lm_eval_scores.py").string(),
                    words, out.string(), log.string());
    EXPECT_EQ(std::system(command.c_str()), 0) << read_text(log);
    return read_text(out);
  }
  json theirs(std::string const& tasks, int shots, int limit) {
    return json::parse(call(fmt::format("score {} {} {} {} {}", (dir_ / "model").string(),
                                        test_data("datasets").string(), limit, shots, tasks)));
  }
  json ours(std::string const& tasks, int shots, int limit, std::string const& data) {
    auto const outcome = run(dir_.path(), 2,
                             {"fsllm_eval", "--model", (dir_ / "model").string(), "--tasks", tasks, "--shots",
                              std::to_string(shots), "--limit", std::to_string(limit), "--data", data,
                              "--out", (dir_ / "out").string()});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return json::parse(read_text(dir_ / "out/results.json"));
  }
  /// Items that both saw whole: longer prompts lose examples here, and any tokens there.
  int compare(std::vector<json> const& samples, json const& expected, std::string const& metric) {
    int compared = 0;
    double largest = 0;
    EXPECT_EQ(samples.size(), expected.size());
    for (size_t i = 0; i < std::min(samples.size(), expected.size()); ++i) {
      if (samples[i].contains("dropped_shots") || samples[i].contains("prompt_cut")) continue;
      ++compared;
      auto const& mine = samples[i].at("resps");
      auto const& other = expected[i].at("resps");
      EXPECT_EQ(mine.size(), other.size());
      for (size_t c = 0; c < mine.size(); ++c) {
        largest = std::max(largest, std::abs(mine[c][0].get<double>() - other[c][0].get<double>()));
        EXPECT_EQ(mine[c][1], other[c][1]) << samples[i];
      }
      EXPECT_EQ(samples[i].at("metrics").at(metric + ",none").get<double>(),
                expected[i].at("metrics").at(metric).get<double>())
          << samples[i];
    }
    EXPECT_LT(largest, 1e-4);
    fmt::print("{} items, largest difference of a log-likelihood {:.2g}\n", compared, largest);
    return compared;
  }
  TempDir dir_;
  std::string python_;
};

TEST_F(LmEval, MmluItemByItem) {
  std::vector<std::string> const subjects{"college_chemistry", "global_facts",  "high_school_geography",
                                          "marketing",         "miscellaneous", "us_foreign_policy"};
  std::string names;
  auto const data = test_data("datasets");
  for (auto const& subject : subjects) {
    names += (names.empty() ? "mmlu_" : ",mmlu_") + subject;
    for (std::string const split : {"dev", "test"}) {
      fs::create_directories(dir_ / "data/mmlu" / split);
      auto const file = subject + "_" + split + ".csv";
      fs::copy(data / "mmlu" / split / file, dir_ / "data/mmlu" / split / file);
    }
  }
  auto const expected = theirs(names, 1, 12);
  auto const results = ours("mmlu", 1, 12, (dir_ / "data").string());
  std::map<std::string, std::vector<json>> samples;
  for (auto const& line : read_events(dir_ / "out/samples_mmlu.jsonl"))
    samples[line.at("group")].push_back(line);
  int compared = 0;
  for (auto const& subject : subjects) {
    auto const name = "mmlu_" + subject;
    auto const before = compared;
    compared += compare(samples[name], expected.at("samples").at(name), "acc");
    if (compared - before < 12) continue;
    auto const& mine = results.at("results").at(name);
    auto const& other = expected.at("results").at(name);
    EXPECT_DOUBLE_EQ(mine.at("acc,none").get<double>(), other.at("acc,none").get<double>());
    EXPECT_NEAR(mine.at("acc_stderr,none").get<double>(), other.at("acc_stderr,none").get<double>(), 1e-12);
  }
  EXPECT_GE(compared, 50);
}

}  // namespace
}  // namespace fsllm::test
