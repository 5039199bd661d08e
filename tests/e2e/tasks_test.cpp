// SPDX-License-Identifier: Apache-2.0
// fsllm_eval with tasks by name: files that depend on the questions alone, what is kept, what is said.
#include <fmt/core.h>

#include <fstream>
#include <regex>
#include <thread>

#include "federation.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class Tasks : public testing::Test {
 protected:
  Tasks() {
    write_text_model(dir_ / "model", 700);
    write_mmlu(dir_ / "data");
  }
  Outcome evaluate(std::string const& tasks, std::string const& out, int np = 0,
                   std::vector<std::string> const& more = {}) {
    std::vector<std::string> words{"fsllm_eval", "--model", (dir_ / "model").string(), "--tasks",
                                   tasks,        "--data",  (dir_ / "data").string(),  "--batch_tokens",
                                   "900",        "--out",   (dir_ / out).string()};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  void expect_ok(Outcome const& outcome) { ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out; }
  void expect_refused(Outcome const& outcome, std::string const& said) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err << outcome.out;
    EXPECT_THAT(outcome.err, testing::HasSubstr(said));
    EXPECT_EQ(outcome.err.find("error: "), outcome.err.rfind("error: ")) << outcome.err;
  }
  json results(std::string const& out) const {
    return json::parse(read_text(dir_ / (out + "/results.json")));
  }
  /// Bytes of all that was written, by name.
  std::map<std::string, std::string> files(std::string const& out) const {
    std::map<std::string, std::string> found;
    for (auto const& entry : fs::recursive_directory_iterator(dir_ / out)) {
      auto const name = entry.path().lexically_relative(dir_ / out).string();
      if (entry.is_regular_file() && !name.starts_with(".fsllm")) found[name] = read_text(entry.path());
    }
    return found;
  }
  /// An adapter that LoRA starts with (B zero), or one with values.
  std::string adapter(std::string const& name, double value) {
    auto const yaml = fmt::format(
        "outdir: {0}\nexpname: {1}\nmodel: {{type: {0}/model}}\n"
        "data: {{root: {0}, type: rows.jsonl, splits: [1.0, 0.0, 0.0]}}\n"
        "federate: {{client_num: 2, total_round_num: 1}}\n"
        "train: {{local_update_steps: 1, optimizer: {{type: SGD, lr: {2}}}}}\n"
        "llm: {{tok_len: 200, adapter: {{use: True, args: [{{r: 4, lora_alpha: 8}}]}}}}\n",
        dir_.path().string(), name, value);
    std::ofstream rows(dir_ / "rows.jsonl");
    for (int i = 0; i < 8; ++i)
      rows << R"({"instruction": "say", "input": "", "output": "no"})"
           << "\n";
    rows.close();
    expect_ok(run(dir_.path(), 0, {"fsllm_hpc", "--cfg", write_config(dir_.path(), yaml).string()}));
    return name + "=" + (dir_ / (name + "/adapter")).string();
  }
  TempDir dir_;
};

TEST_F(Tasks, FilesHaveTheSameBytesOnAnyRanks) {
  auto const zero = adapter("zero", 0), some = adapter("some", 0.5);
  std::vector<std::string> const more{"--base", "--adapter", zero, "--adapter", some};
  expect_ok(evaluate("mmlu,flowertune_general_nlp", "out1", 0, more));
  auto const alone = files("out1");
  EXPECT_EQ(alone.size(), 2U + 3 * 4);
  for (int const np : {2, 3}) {
    auto const out = "out" + std::to_string(np);
    expect_ok(evaluate("mmlu,flowertune_general_nlp", out, np, more));
    EXPECT_TRUE(files(out) == alone) << np;
  }
}

TEST_F(Tasks, EveryTaskHasTheSameBytesOnAnyRanks) {
  write_other_tasks(dir_ / "data");
  std::string const list = "gsm8k,lambada,dolly,own.jsonl,prompts.jsonl,notes.txt";
  expect_ok(evaluate(list, "out1"));
  expect_ok(evaluate("code_search_net", "net1", 0, {"--shots", "0"}));
  for (int const np : {2, 3}) {
    auto const n = std::to_string(np);
    expect_ok(evaluate(list, "out" + n, np));
    expect_ok(evaluate("code_search_net", "net" + n, np, {"--shots", "0"}));
    EXPECT_TRUE(files("out" + n) == files("out1")) << np;
    EXPECT_TRUE(files("net" + n) == files("net1")) << np;
  }
  auto const all = results("out1").at("results");
  EXPECT_GT(all.at("notes").at("token_perplexity,none"), 1);
  EXPECT_EQ(all.at("own").at("acc_constant,none"), 5.0 / 9);
  EXPECT_EQ(read_events(dir_ / "out1/samples_gsm8k.jsonl").size(), 9U);
}

/// Tests really run: those whose expectation is wrong fail, the rest pass; np 1 = np 2.
TEST_F(Tasks, HumanEvalRunsTests) {
  write_other_tasks(dir_ / "data");
  auto const alone = evaluate("humaneval", "out");
  if (alone.exit_code == 2) {
    EXPECT_THAT(alone.err, testing::HasSubstr("humaneval: no score (bwrap"));
    GTEST_SKIP() << "no sandbox: " << alone.err;
  }
  expect_ok(alone);
  EXPECT_DOUBLE_EQ(results("out").at("results").at("humaneval").at("pass@1,none").get<double>(), 3.0 / 9);
  expect_ok(evaluate("humaneval", "out2", 2));
  EXPECT_TRUE(files("out2") == files("out"));
}

TEST_F(Tasks, WithoutASandboxAnswersAreKept) {
  write_other_tasks(dir_ / "data");
  std::string const path = std::getenv("PATH");
  ASSERT_EQ(::setenv("PATH", "/nowhere", 1), 0);
  auto const outcome = evaluate("humaneval,lambada", "out");
  ASSERT_EQ(::setenv("PATH", path.c_str(), 1), 0);
  expect_refused(outcome, "humaneval: no score (bwrap is not on the PATH; it is in the package bubblewrap)");
  EXPECT_EQ(read_events(dir_ / "out/humaneval_answers.jsonl").size(), 45U);
  EXPECT_TRUE(results("out").at("results").contains("lambada"));
  EXPECT_FALSE(results("out").at("results").contains("humaneval"));
}

TEST_F(Tasks, ResultsHaveTheHarnessLayout) {
  expect_ok(evaluate("mmlu", "out", 0, {"--limit", "6", "--shots", "2"}));
  auto const all = results("out");
  auto const& mmlu = all.at("results").at("mmlu");
  EXPECT_EQ(mmlu.at("acc,none"), mmlu.at("acc_unweighted,none"));  // six of each subject
  // Letters 0 1 2 0 1 2 and 0 1 2 3 0 1.
  EXPECT_DOUBLE_EQ(mmlu.at("acc_constant,none").get<double>(), 4.0 / 12);
  EXPECT_EQ(all.at("groups").size(), 3U);
  EXPECT_EQ(all.at("group_subtasks").at("mmlu"), (json{"mmlu_stem", "mmlu_humanities"}));
  EXPECT_EQ(all.at("group_subtasks").at("mmlu_stem"), json{"mmlu_anatomy"});
  EXPECT_EQ(all.at("n-shot").at("mmlu_anatomy"), 2);
  EXPECT_EQ(all.at("n-samples").at("mmlu_anatomy").at("effective"), 6);
  EXPECT_EQ(all.at("configs").at("mmlu").at("num_fewshot"), 2);
  auto const samples = read_events(dir_ / "out/samples_mmlu.jsonl");
  ASSERT_EQ(samples.size(), 12U);
  double right = 0;
  for (auto const& sample : samples) {
    auto const& resps = sample.at("resps");
    size_t best = 0;
    for (size_t c = 1; c < 4; ++c)
      if (resps[c][0] > resps[best][0]) best = c;
    EXPECT_EQ(sample.at("prediction"), std::string(1, "ABCD"[best]));
    right += sample.at("prediction") == sample.at("target") ? 1 : 0;
  }
  EXPECT_DOUBLE_EQ(mmlu.at("acc,none").get<double>(), right / 12);
  EXPECT_THAT(read_text(dir_ / "out/results.md"), testing::HasSubstr("| base | -- anatomy | 6 | 2 | acc |"));
  EXPECT_THAT(read_text(dir_ / "out/results.csv"),
              testing::HasSubstr("base,mmlu_international_law,1,2,6,acc"));
}

TEST_F(Tasks, WhatIsDoneIsKeptWhereNothingChanged) {
  expect_ok(evaluate("mmlu", "out"));
  auto const before = file_checksums(dir_ / "out");
  auto again = evaluate("mmlu", "out", 2);
  expect_ok(again);
  EXPECT_THAT(again.out + again.err, testing::HasSubstr("base: mmlu: kept from a call before"));
  EXPECT_EQ(file_checksums(dir_ / "out"), before);
  // A damaged file, other examples and another adapter are done anew.
  std::ofstream(dir_ / "out/samples_mmlu.jsonl", std::ios::app) << "{}\n";
  again = evaluate("mmlu", "out");
  EXPECT_THAT(again.out + again.err, testing::Not(testing::HasSubstr("kept from")));
  EXPECT_EQ(file_checksums(dir_ / "out"), before);
  again = evaluate("mmlu", "out", 0, {"--shots", "1"});
  EXPECT_THAT(again.out + again.err, testing::Not(testing::HasSubstr("kept from")));
  // What a job that was killed behind its first task has left.
  expect_ok(evaluate("flowertune_general_nlp,mmlu", "both"));
  for (auto const* name : {"results.json", "results.csv", "results.md", "samples_mmlu.jsonl"})
    fs::remove(dir_ / "both" / name);
  auto done = json::parse(read_text(dir_ / "both/tasks.json"));
  done.erase("mmlu");
  std::ofstream(dir_ / "both/tasks.json") << done.dump();
  again = evaluate("flowertune_general_nlp,mmlu", "both", 2);
  expect_ok(again);
  EXPECT_THAT(again.out + again.err, testing::HasSubstr("flowertune_general_nlp: kept from"));
  EXPECT_EQ(results("both").at("results").at("mmlu"), json::parse([&] {
                                                        expect_ok(evaluate("mmlu", "fresh"));
                                                        return read_text(dir_ / "fresh/results.json");
                                                      }())
                                                          .at("results")
                                                          .at("mmlu"));
}

/// A task that is killed in its middle, twice, goes on behind its finished batches on other ranks.
TEST_F(Tasks, AKilledTaskGoesOnWhereItWas) {
  std::ofstream own(dir_ / "data/own.jsonl"), prompts(dir_ / "data/prompts.jsonl");
  for (int i = 0; i < 3000; ++i) {
    own << json{{"question", fmt::format("is {0} or {1} or {2}", i, i * 7, i * 31)},
                {"choices", {"yes", "no"}},
                {"answer", i % 2}}
               .dump()
        << "\n";
    if (i < 400)
      prompts << json{{"prompt", fmt::format("say {}", i)}, {"targets", "x"}, {"max_tokens", 40}}.dump()
              << "\n";
  }
  own.close(), prompts.close();
  for (std::string const task : {"own", "prompts"}) {
    expect_ok(evaluate(task + ".jsonl", "whole_" + task));
    auto const unfinished = dir_ / ("cut_" + task + "/" + task + ".unfinished");
    int64_t before = 0;
    for (int const np : {2, 3}) {
      std::vector<std::string> const words{
          "fsllm_eval",    "--model", (dir_ / "model").string(),        "--tasks",
          task + ".jsonl", "--data",  (dir_ / "data").string(),         "--batch_tokens",
          "900",           "--out",   (dir_ / ("cut_" + task)).string()};
      auto const bytes = [&] {
        int64_t sum = 0;
        std::error_code gone;
        for (auto const& file : fs::directory_iterator(unfinished, gone))
          sum += static_cast<int64_t>(fs::file_size(file, gone));
        return sum;
      };
      Background cut(dir_.path(), np, words);
      while (cut.running() && bytes() <= before + 200)
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ASSERT_TRUE(cut.running()) << "it ended before it could be killed";
      cut.kill_hard();
      before = bytes();
    }
    // A line that was cut off, and one that is damaged, count for nothing.
    std::ofstream(unfinished / "rank_0", std::ios::app) << "0123456789abcdef [false,0,1,[[0,0,true]]]\n0123";
    auto const again = evaluate(task + ".jsonl", "cut_" + task);
    expect_ok(again);
    std::smatch said;
    auto const all = again.out + again.err;
    ASSERT_TRUE(
        std::regex_search(all, said, std::regex("(\\d+) of (\\d+) rows were computed by a call before")))
        << all;
    EXPECT_GT(std::stoi(said[1]), 0);
    EXPECT_LT(std::stoi(said[1]), std::stoi(said[2]));
    EXPECT_TRUE(files("cut_" + task) == files("whole_" + task));
    EXPECT_FALSE(fs::exists(unfinished));
  }
}

TEST_F(Tasks, AnAdapterThatDoesNothingIsNamed) {
  auto const zero = adapter("zero", 0), some = adapter("some", 0.5);
  auto outcome = evaluate("mmlu", "out", 2, {"--adapter", zero});
  expect_ok(outcome);
  EXPECT_THAT(outcome.out + outcome.err, testing::HasSubstr("warning zero changes nothing"));
  EXPECT_TRUE(read_text(dir_ / "out/results.md").starts_with("Note: zero changes nothing"));
  EXPECT_THAT(results("out").at("config").at("notes").dump(), testing::HasSubstr("changes nothing"));
  outcome = evaluate("mmlu", "out2", 0, {"--adapter", some});
  EXPECT_EQ(results("out2").at("config").at("notes").size(), 0U) << results("out2");
  fs::copy(dir_ / "model", dir_ / "twin");
  std::vector<std::string> const words{"fsllm_eval",
                                       "--model",
                                       (dir_ / "twin").string(),
                                       "--tasks",
                                       "mmlu",
                                       "--data",
                                       (dir_ / "data").string(),
                                       "--out",
                                       (dir_ / "out3").string(),
                                       "--adapter",
                                       some};
  outcome = run(dir_.path(), 0, words);
  expect_ok(outcome);
  EXPECT_THAT(outcome.out + outcome.err, testing::HasSubstr("some was trained on the model "));
  fs::remove(dir_ / "some/adapter/fsllm.json");
  outcome = run(dir_.path(), 0, words);
  EXPECT_THAT(outcome.out + outcome.err, testing::HasSubstr("some names the model "));
}

TEST_F(Tasks, LongPromptsLoseExamplesFirst) {
  fs::remove_all(dir_ / "model");
  write_text_model(dir_ / "model", 160);
  auto const outcome = evaluate("mmlu", "out", 0, {"--shots", "5"});
  expect_ok(outcome);
  EXPECT_THAT(outcome.out + outcome.err, testing::HasSubstr("14 of 14 prompts have fewer than 5 examples"));
  for (auto const& sample : read_events(dir_ / "out/samples_mmlu.jsonl")) {
    EXPECT_GT(sample.at("dropped_shots"), 0);
    EXPECT_FALSE(sample.contains("prompt_cut"));
  }
  EXPECT_EQ(results("out").at("configs").at("mmlu").at("prompts_shortened"), 14);
}

TEST_F(Tasks, MistakesAreExplained) {
  expect_refused(evaluate("mmlo", "out", 2), "--tasks = 'mmlo' (not a known name). Did you mean 'mmlu'?");
  expect_refused(evaluate("mmlu,,mmlu", "out"), "(a name is missing between commas)");
  expect_refused(evaluate("mmlu,mmlu", "out"), "mmlu stands there twice");
  expect_refused(evaluate("mmlu", "out", 2, {"--shots", "8"}),
                 "--shots 8 (mmlu/dev of anatomy has 7 examples)");
  expect_refused(evaluate("flowertune_general_nlp", "out", 0, {"--shots", "1"}), "has no examples");
  expect_refused(evaluate("mmlu", "out", 0, {"--prompt_template", "plain"}), "prompts of their own");
  std::ofstream(dir_ / "data/rows.jsonl") << R"({"instruction": "a", "output": "b"})"
                                          << "\n";
  expect_refused(evaluate("rows.jsonl", "out", 0, {"--shots", "1"}), "are asked without examples");
  fs::rename(dir_ / "data", dir_ / "elsewhere");
  expect_refused(evaluate("mmlu", "out"), "no questions in ");
  fs::rename(dir_ / "elsewhere", dir_ / "data");
  auto const file = dir_ / "data/mmlu/test/anatomy_test.csv";
  std::ofstream(file) << "what,a,b,c,d,A\nwhat,a,b,c,A\n";
  expect_refused(evaluate("mmlu", "out", 2), "anatomy_test.csv:2: 5 fields (a question, four choices");
  std::ofstream(file) << "what,a,b,c,d,E\n";
  expect_refused(evaluate("mmlu", "out"), "anatomy_test.csv:1: answer 'E' (A to D, or 0 to 3)");
  std::ofstream(file) << "what,a,b,c,d,A\n\"what,a,b,c,d,A\n";
  expect_refused(evaluate("mmlu", "out"), "anatomy_test.csv:2: a quote that is never closed");
  fs::remove(dir_ / "data/mmlu/dev/anatomy_dev.csv");
  std::ofstream(file) << "what,a,b,c,d,A\n";
  expect_refused(evaluate("mmlu", "out"), "cannot read ");
  EXPECT_FALSE(fs::exists(dir_ / "out"));
}

}  // namespace
}  // namespace fsllm::test
