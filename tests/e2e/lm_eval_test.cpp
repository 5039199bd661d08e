// SPDX-License-Identifier: Apache-2.0
// Our tasks against lm-evaluation-harness' hf backend, item by item, on a real trained model.
#include <fmt/core.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

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
  json theirs(std::string const& tasks, int shots, int limit, std::string const& data) {
    return json::parse(
        call(fmt::format("score {} {} {} {} {}", (dir_ / "model").string(), data, limit, shots, tasks)));
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
      auto const other = expected[i].at("resps").is_array() && expected[i].at("resps")[0].is_array()
                             ? expected[i].at("resps")
                             : json::array({expected[i].at("resps")});
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
  auto const expected = theirs(names, 1, 12, data.string());
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

TEST_F(LmEval, LambadaAndOwnQuestionsItemByItem) {
  auto const data = dir_ / "data";
  fs::create_directories(data / "text");
  fs::copy(test_data("datasets/text/lambada_test.jsonl"), data / "text/lambada_test.jsonl");
  std::ofstream own(data / "own.jsonl"), texts(data / "texts.jsonl");
  auto const passages = read_events(data / "text/lambada_test.jsonl");
  for (int i = 0; i < 50; ++i) {
    auto const passage = passages[static_cast<size_t>(100 + i)].at("text").get<std::string>();
    auto const half = passage.find(' ', passage.size() / 2);
    own << json{{"question", passage.substr(0, half)},
                {"choices", {passage.substr(half + 1), "the end", "She was a big, red bal\u00e9."}},
                {"answer", i % 3}}
               .dump()
        << "\n";
    if (i % 10 == 0) {
      std::string document;
      for (int k = 0; k <= i; ++k) document += passages[static_cast<size_t>(k)].at("text").get<std::string>();
      texts << json{{"text", document}}.dump() << "\n";
    }
  }
  own.close();
  texts.close();
  auto const expected = theirs("lambada,own,texts", 0, 50, data.string());
  auto const results = ours("lambada,own.jsonl,texts.jsonl", 0, 50, data.string());
  EXPECT_GE(
      compare(read_events(dir_ / "out/samples_lambada.jsonl"), expected.at("samples").at("lambada"), "acc"),
      50);
  auto const choices = read_events(dir_ / "out/samples_own.jsonl");
  EXPECT_GE(compare(choices, expected.at("samples").at("own"), "acc"), 50);
  EXPECT_GE(compare(choices, expected.at("samples").at("own"), "acc_norm"), 50);
  auto const near = [&](char const* task, char const* metric, double tolerance) {
    auto const theirs = expected.at("results").at(task).at(metric).get<double>();
    EXPECT_NEAR(results.at("results").at(task).at(metric).get<double>(), theirs, tolerance * theirs)
        << task << " " << metric;
  };
  near("lambada", "acc,none", 1e-12);
  near("lambada", "perplexity,none", 1e-5);
  near("own", "acc,none", 1e-12);
  near("own", "acc_norm,none", 1e-12);
  near("own", "acc_stderr,none", 1e-9);
  for (auto const* metric : {"word_perplexity,none", "byte_perplexity,none", "bits_per_byte,none"})
    near("texts", metric, 1e-5);
}

/// gsm8k_cot: the same texts up to the next question, and the same verdicts of both of its filters.
TEST_F(LmEval, Gsm8kItemByItem) {
  auto const data = test_data("datasets").string();
  auto const expected = theirs("gsm8k_cot", 0, 60, data);
  ours("gsm8k", 0, 60, data);
  auto const samples = read_events(dir_ / "out/samples_gsm8k.jsonl");
  ASSERT_EQ(samples.size(), 60U);
  std::map<std::string, size_t> seen, compared;
  for (auto const& theirs : expected.at("samples").at("gsm8k_cot")) {
    auto const filter = theirs.at("filter").get<std::string>();
    auto const& mine = samples.at(seen[filter]++);
    if (mine.contains("prompt_cut")) continue;
    ++compared[filter];
    auto const text = mine.at("resps")[0].get<std::string>();
    EXPECT_EQ(text.substr(0, text.find("Q:")), theirs.at("raw")[0][0].get<std::string>()) << mine;
    EXPECT_EQ(mine.at("metrics").at("exact_match," + filter), theirs.at("metrics").at("exact_match")) << mine;
  }
  EXPECT_GE(compared["strict-match"], 50U);
  EXPECT_GE(compared["flexible-extract"], 50U);
  fmt::print("{} texts\n", compared["strict-match"]);
}

}  // namespace
}  // namespace fsllm::test
