// SPDX-License-Identifier: Apache-2.0
// eval.tasks: the global model is put to tasks while it is trained, by what fsllm_eval does with the result.
#include <fmt/core.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "federation.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string const kTasks = "mmlu,lambada,dolly,own.jsonl,prompts.jsonl";

class RunTasks : public testing::Test {
 protected:
  RunTasks() {
    write_text_model(dir_ / "model", 700);
    write_mmlu(dir_ / "data");
    write_other_tasks(dir_ / "data");
    std::ofstream rows(dir_ / "rows.jsonl");
    for (int i = 0; i < 24; ++i)
      rows << json{{"instruction", fmt::format("say {}", i)}, {"output", i % 2 == 0 ? "no" : "yes"}}.dump()
           << "\n";
  }
  std::vector<std::string> words(std::string const& name, std::vector<std::string> const& more) {
    auto const yaml = fmt::format(
        "outdir: {0}\nmodel: {{type: {0}/model}}\n"
        "data: {{root: {0}, type: rows.jsonl, splits: [0.8, 0.2, 0.0]}}\n"
        "federate: {{client_num: 3, total_round_num: 3}}\n"
        "train: {{local_update_steps: 2, optimizer: {{type: SGD, lr: 0.3}}}}\n"
        "llm: {{tok_len: 200, adapter: {{use: True, args: [{{r: 4, lora_alpha: 8, lora_dropout: 0.1}}]}}}}\n"
        "eval: {{task_data: {0}/data}}\n",
        dir_.path().string());
    std::vector<std::string> all{"fsllm_hpc", "--cfg", write_config(dir_.path(), yaml).string(), "expname",
                                 name};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Outcome train(std::string const& name, int np, std::vector<std::string> const& more) {
    return run(dir_.path(), np, words(name, more));
  }
  void expect_ok(Outcome const& outcome) { ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out; }
  void expect_refused(Outcome const& outcome, std::string const& said) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err << outcome.out;
    EXPECT_THAT(outcome.err, testing::HasSubstr(said));
    EXPECT_EQ(outcome.err.find("error: "), outcome.err.rfind("error: ")) << outcome.err;
  }
  std::vector<json> task_events(std::string const& name) {
    std::vector<json> events;
    for (auto event : read_events(dir_ / (name + "/metrics.jsonl")))
      if (event.at("event") == "tasks") {
        event.erase("seconds");
        events.push_back(event);
      }
    return events;
  }
  /// fsllm_eval on what the run has written says what the run said of it after its last round.
  void expect_evals_answers(std::string const& name, std::string const& tasks, int np = 0) {
    auto const out = dir_ / ("eval_" + name), last = dir_ / (name + "/tasks/round_000003");
    expect_ok(run(dir_.path(), np,
                  {"fsllm_eval", "--run", (dir_ / name).string(), "--tasks", tasks, "--data",
                   (dir_ / "data").string(), "--out", out.string()}));
    size_t samples = 0;
    for (auto const& entry : fs::directory_iterator(out)) {
      auto const file = entry.path().filename().string();
      if (!file.starts_with("samples_")) continue;
      ++samples;
      EXPECT_EQ(read_text(entry.path()), read_text(last / file)) << name << " " << file;
    }
    EXPECT_EQ(samples, 1U + static_cast<size_t>(std::ranges::count(tasks, ',')));
    auto const results = [](fs::path const& folder) {
      return json::parse(read_text(folder / "results.json")).at("results");
    };
    EXPECT_EQ(results(out), results(last));
    for (auto const& [task, metrics] : task_events(name).back().at("tasks").items())
      for (auto const& [metric, value] : metrics.items())
        EXPECT_EQ(value, results(out).at(task).at(metric)) << task;
  }
  TempDir dir_;
};

TEST_F(RunTasks, AreThoseOfFsllmEvalOnAnyRanks) {
  expect_ok(train("plain", 2, {}));
  std::vector<std::string> const more{"eval.tasks", "[" + kTasks + "]", "eval.task_freq", "2"};
  for (int const np : {0, 2, 3}) {
    auto const name = fmt::format("run{}", np);
    expect_ok(train(name, np, more));
    // Training is what it is without.
    EXPECT_EQ(file_checksums(dir_ / (name + "/adapter")), file_checksums(dir_ / "plain/adapter"));
    ASSERT_EQ(task_events(name).size(), 2U);
    EXPECT_EQ(task_events(name), task_events("run0"));
    EXPECT_EQ(file_checksums(dir_ / (name + "/tasks")), file_checksums(dir_ / "run0/tasks"));
  }
  auto const events = task_events("run0");
  EXPECT_EQ(events[0].at("round"), 2);
  EXPECT_EQ(events[1].at("round"), 3);
  EXPECT_NE(events[0].at("tasks"), events[1].at("tasks"));  // the model moves
  EXPECT_EQ(json::parse(read_text(dir_ / "run0/summary.json")).at("tasks"), events[1].at("tasks"));
  expect_evals_answers("run0", kTasks, 2);
}

TEST_F(RunTasks, OfFullModelsAndOtherMethods) {
  std::string const tasks = "mmlu,prompts.jsonl,dolly";
  std::vector<std::string> const list{"eval.tasks", "[" + tasks + "]"};
  auto const with = [&](std::vector<std::string> more) {
    more.insert(more.end(), list.begin(), list.end());
    return more;
  };
  expect_ok(train("full", 2, with({"llm.adapter.use", "False", "train.optimizer.lr", "0.05"})));
  expect_evals_answers("full", tasks);
  EXPECT_EQ(task_events("full").size(), 1U);
  expect_ok(train("ditto", 2, with({"federate.method", "ditto"})));
  EXPECT_TRUE(fs::exists(dir_ / "ditto/tasks/round_000003/results.json"));
  expect_evals_answers("ditto", tasks);
  expect_ok(train("ffa", 2, with({"federate.lora_aggregation", "ffa"})));
  expect_evals_answers("ffa", tasks);
  expect_ok(
      train("prefix", 3, with({"llm.adapter.args", "[{adapter_method: prefix, num_virtual_tokens: 4}]"})));
  expect_evals_answers("prefix", tasks);
  expect_ok(train("int8", 2, with({"train.storage_dtype", "int8"})));
  expect_evals_answers("int8", tasks);
  // With what its frozen matrices have gained, which is in the merged model.
  expect_ok(train("flora", 2, with({"federate.lora_aggregation", "flora"})));
  EXPECT_EQ(task_events("flora").size(), 1U);
}

/// Stopped in the middle of a task, by SIGKILL and by SIGTERM: no round is trained and no batch computed
/// again.
TEST_F(RunTasks, GoOnAfterAStop) {
  std::ofstream prompts(dir_ / "data/prompts.jsonl");
  for (int i = 0; i < 200; ++i)
    prompts << json{{"prompt", fmt::format("say {}", i)}, {"targets", "x"}, {"max_tokens", 60}}.dump()
            << "\n";
  prompts.close();
  std::vector<std::string> const more{"eval.tasks", "[lambada, prompts.jsonl]", "eval.task_freq", "2"};
  expect_ok(train("whole", 2, more));
  for (int const signal : {SIGKILL, SIGTERM}) {
    auto const name = fmt::format("cut{}", signal);
    auto const begun = dir_ / (name + "/tasks/round_000002/prompts.unfinished/rank_0");
    // mpirun has an exit code of its own after a signal.
    Background cut(dir_.path(), signal == SIGKILL ? 2 : 0, words(name, more));
    std::error_code none;
    while (cut.running() && (!fs::exists(begun) || fs::file_size(begun, none) < 100))
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ASSERT_TRUE(cut.running()) << "it ended before it could be stopped";
    if (signal == SIGKILL) {
      cut.kill_hard();
    } else {
      cut.signal(SIGTERM);
      EXPECT_EQ(cut.ends_within(std::chrono::seconds(60)), 85);
    }
    EXPECT_TRUE(task_events(name).empty());
    auto resumed = more;
    resumed.push_back("--resume");
    auto const outcome = train(name, 3, resumed);
    expect_ok(outcome);
    auto const said = outcome.out + outcome.err;
    EXPECT_THAT(said, testing::HasSubstr("rows were computed by a call before"));
    EXPECT_THAT(said, testing::HasSubstr("round 2: lambada: kept from a call before"));
    EXPECT_THAT(said, testing::HasSubstr("continuing after round 2"));
    EXPECT_EQ(training_record(dir_ / (name + "/metrics.jsonl")),
              training_record(dir_ / "whole/metrics.jsonl"));
    EXPECT_EQ(file_checksums(dir_ / (name + "/tasks")), file_checksums(dir_ / "whole/tasks"));
    EXPECT_EQ(file_checksums(dir_ / (name + "/adapter")), file_checksums(dir_ / "whole/adapter"));
    // A run that has ended says so, and repeats nothing.
    auto const before = file_checksums(dir_ / name / "tasks");
    expect_ok(train(name, 2, resumed));
    EXPECT_EQ(file_checksums(dir_ / name / "tasks"), before);
    EXPECT_EQ(task_events(name).size(), 2U);
  }
}

TEST_F(RunTasks, MistakesEndTheRunBeforeItTrains) {
  auto const refused = [&](std::vector<std::string> const& more, std::string const& said) {
    for (std::string const check : {"", "--check"}) {
      auto all = more;
      if (!check.empty()) all.push_back(check);
      expect_refused(train("wrong", 2, all), said);
    }
    EXPECT_FALSE(fs::exists(dir_ / "wrong/metrics.jsonl"));
  };
  refused({"eval.tasks", "[mmlo]"}, "eval.tasks = 'mmlo' (not a known name). Did you mean 'mmlu'?");
  refused({"eval.tasks", "[gsm8k]", "eval.task_data", "/nowhere"}, "/nowhere/gsm8k/test.jsonl");
  refused({"eval.tasks", "[mmlu]", "eval.task_shots", "8"},
          "eval.task_shots 8 (mmlu/dev of anatomy has 7 examples)");
  refused({"eval.tasks", "[mmlu]", "federate.method", "local"},
          "eval.tasks with federate.method = local (it leaves no global model");
  refused(
      {"eval.tasks", "[mmlu]", "hpc.ranks_per_client", "2"},
      "eval.tasks with hpc.ranks_per_client = 2 (tasks are shared by ranks that each have a whole model)");
  refused({"eval.tasks", "[mmlu]", "llm.offsite_tuning.use", "True"},
          "eval.tasks with llm.offsite_tuning.use = True (rank 0 alone has the model");
  std::ofstream(dir_ / "data/long.jsonl")
      << json{{"question", "is it"}, {"choices", {std::string(900, 'x'), "no"}}, {"answer", 0}}.dump()
      << "\n";
  refused({"eval.tasks", "[long.jsonl]"}, "a choice of 901 tokens");
  std::string const path = std::getenv("PATH");
  ASSERT_EQ(::setenv("PATH", "/nowhere", 1), 0);
  auto const outcome = train("wrong", 0, {"eval.tasks", "[humaneval]"});
  ASSERT_EQ(::setenv("PATH", path.c_str(), 1), 0);
  expect_refused(outcome, "humaneval cannot be judged here (bwrap is not on the PATH");
  EXPECT_FALSE(fs::exists(dir_ / "wrong/metrics.jsonl"));
}

}  // namespace
}  // namespace fsllm::test
