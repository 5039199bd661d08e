// SPDX-License-Identifier: Apache-2.0
// What a run does besides federated LoRA, and what the command line tells.
#include <ATen/core/Tensor.h>
#include <fmt/core.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

Outcome train(TempDir const& dir, int np, SmallRun const& small,
              std::vector<std::string> const& overrides = {}) {
  std::vector<std::string> words{"fsllm_hpc", "--cfg",
                                 write_config(dir.path(), small.yaml(dir.path())).string()};
  words.insert(words.end(), overrides.begin(), overrides.end());
  return run(dir.path(), np, words);
}

SmallRun validated() {
  SmallRun small;
  small.splits = "[0.7, 0.3, 0.0]";
  small.optimizer = "{type: AdamW, lr: 0.01}";
  return small;
}

TEST(Run, GlobalBaselineTrainsOneClientOnAllRows) {
  TempDir dir;
  auto const outcome =
      train(dir, 2, SmallRun{},
            {"federate.method", "global", "train.batch_or_epoch", "epoch", "train.local_update_steps", "1"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  for (auto const& event : read_events(dir / "run/metrics.jsonl")) {
    EXPECT_EQ(event.at("train").at("clients"), 1);
    EXPECT_EQ(event.at("train").at("samples"), 13);
  }
}

TEST(Run, LocalBaselineOfOneClientUsesItsRowsAlone) {
  TempDir alone, local;
  ASSERT_EQ(
      train(alone, 2, SmallRun{}, {"federate.client_idx_for_local_train", "2", "train.optimizer.lr", "0.05"})
          .exit_code,
      0);
  ASSERT_EQ(train(local, 2, SmallRun{}, {"federate.method", "local", "train.optimizer.lr", "0.05"}).exit_code,
            0);
  for (auto const& line : read_events(alone / "run/metrics_clients.jsonl")) EXPECT_EQ(line.at("client"), 2);
  // Method local does the same for every client at once; one keeps the weights, the other adds w_k - w to w.
  SafetensorsReader const expected(alone / "run/adapter", "adapter_model"),
      actual(local / "run/adapter/client_00002", "adapter_model");
  ASSERT_EQ(actual.names(), expected.names());
  for (auto const& name : expected.names())
    EXPECT_TRUE(tensors_near(actual.tensor(name), expected.tensor(name), 1e-6)) << name;
}

TEST(Run, FullModelTrainingWritesAModelThatScores) {
  TempDir dir;
  auto small = validated();
  small.optimizer = "{type: SGD, lr: 0.02}";
  auto const outcome = train(dir, 2, small, {"llm.adapter", "{use: False}"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  auto const events = read_events(dir / "run/metrics.jsonl");
  EXPECT_LT(events.back().at("train").at("loss_per_token"), events.at(1).at("train").at("loss_per_token"));
  std::ofstream(dir / "requests.jsonl")
      << R"({"id": 1, "type": "loglikelihood", "context_ids": [3, 4], "continuation_ids": [5, 6]})"
      << "\n";
  auto const scored =
      run(dir.path(), 2,
          {"fsllm_eval", "--model", (dir / "run/model").string(), "--requests",
           (dir / "requests.jsonl").string(), "--responses", (dir / "responses.jsonl").string()});
  ASSERT_EQ(scored.exit_code, 0) << scored.err;
  EXPECT_LT(read_events(dir / "responses.jsonl").at(0).at("loglikelihood").get<double>(), 0);
}

TEST(Run, StopsEarlyAndKeepsTheBest) {
  TempDir dir;
  auto small = validated();
  small.rounds = 30;
  small.optimizer = "{type: AdamW, lr: 0.1}";
  small.more = "early_stop: {patience: 2}\n";
  auto const outcome = train(dir, 2, small);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  auto const end = read_events(dir / "run/metrics.jsonl").back();
  EXPECT_TRUE(end.at("stopped_early").get<bool>());
  EXPECT_LT(end.at("round").get<int>(), 30);
  double best = 1e9;
  int best_round = 0;
  for (auto const& event : read_events(dir / "run/metrics.jsonl")) {
    if (event.at("event") != "round" || event.at("val").at("loss_per_token").get<double>() >= best) continue;
    best = event.at("val").at("loss_per_token");
    best_round = event.at("round");
  }
  EXPECT_EQ(end.at("best_round").get<int>(), best_round);
  EXPECT_TRUE(std::filesystem::exists(dir / "run/best/adapter_model.safetensors"));
}

TEST(Run, WithoutValidationRowsSaysSo) {
  TempDir dir;
  auto const outcome = train(dir, 0, SmallRun{});
  EXPECT_THAT(outcome.out, testing::HasSubstr("no validation or test rows"));
  EXPECT_FALSE(std::filesystem::exists(dir / "run/best"));
}

TEST(Run, ClientsMayHaveTheirOwnSettings) {
  TempDir dir;
  std::ofstream(dir / "clients.yaml") << "client_2:\n  train: {local_update_steps: 5}\n";
  ASSERT_EQ(train(dir, 2, SmallRun{}, {"--client_cfg", (dir / "clients.yaml").string()}).exit_code, 0);
  auto const lines = read_events(dir / "run/metrics_clients.jsonl");
  EXPECT_EQ(lines.at(0).at("train").at("steps"), 3);
  EXPECT_EQ(lines.at(1).at("train").at("steps"), 5);
}

/// 3 rounds of 3 steps are 9 steps in a row, the schedule included; with a fresh optimiser they are not.
TEST(Run, OneClientThatKeepsItsOptimizerTrainsAsInOneRound) {
  TempDir dir;
  SmallRun small;
  small.optimizer = "{type: AdamW, lr: 0.01}";
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  auto const adapter_of = [&](std::string const& name, std::vector<std::string> const& more) {
    std::vector<std::string> words{"fsllm_hpc",
                                   "--cfg",
                                   config,
                                   "expname",
                                   name,
                                   "federate.client_num",
                                   "1",
                                   "data.splitter",
                                   "iid",
                                   "data.splitter_args",
                                   "[]",
                                   "train.scheduler",
                                   "{type: linear, warmup_steps: 2}"};
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = run(dir.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    return SafetensorsReader(dir / name / "adapter", "adapter_model").tensors();
  };
  auto const distance = [](TensorMap const& a, TensorMap const& b) {
    double largest = 0;
    for (auto const& [name, tensor] : a)
      largest = std::max(largest, tensor.sub(b.at(name)).abs().max().item<double>());
    return largest;
  };
  auto const central =
      adapter_of("central", {"federate.total_round_num", "1", "train.local_update_steps", "9"});
  auto const kept = adapter_of("kept", {"federate.keep_optimizer", "True"}), fresh = adapter_of("fresh", {});
  std::cout << "kept " << distance(kept, central) << ", fresh " << distance(fresh, central) << "\n";
  EXPECT_LE(distance(kept, central), 1e-6);
  EXPECT_GT(distance(fresh, central), 1e-4);
}

TEST(Run, ResolvedConfigurationIsTheSameRun) {
  TempDir first, second;
  ASSERT_EQ(train(first, 0, validated()).exit_code, 0);
  auto const again =
      run(second.path(), 2,
          {"fsllm_hpc", "--cfg", (first / "run/config.yaml").string(), "outdir", second.path().string()});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_TRUE(read_text(first / "run/adapter/adapter_model.safetensors") ==
              read_text(second / "run/adapter/adapter_model.safetensors"));
}

TEST(Run, MergedExportScoresLikeTheAdapter) {
  TempDir dir;
  ASSERT_EQ(train(dir, 0, SmallRun{}).exit_code, 0);
  auto const model = reference_dir("llama").string(), adapter = (dir / "run/adapter").string(),
             merged = (dir / "merged").string();
  ASSERT_EQ(run(dir.path(), 0,
                {"fsllm_export", "--model", model, "--adapter", adapter, "--to", "merged", "--out", merged})
                .exit_code,
            0);
  std::ofstream(dir / "requests.jsonl")
      << R"({"id": 1, "type": "loglikelihood", "context_ids": [3, 4, 9], "continuation_ids": [5, 6]})"
      << "\n";
  auto score = [&](std::vector<std::string> const& what) {
    std::vector<std::string> words{"fsllm_eval", "--requests", (dir / "requests.jsonl").string(),
                                   "--responses", (dir / "out.jsonl").string()};
    words.insert(words.end(), what.begin(), what.end());
    auto const outcome = run(dir.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return read_events(dir / "out.jsonl").at(0).at("loglikelihood").get<double>();
  };
  double const base = score({"--model", model}), adapted = score({"--model", model, "--adapter", adapter});
  EXPECT_GT(std::abs(base - adapted), 1e-2);
  EXPECT_NEAR(score({"--model", merged}), adapted, 1e-4);
}

TEST(Run, PeftLoadsTheAdapterAndItsScoresAgree) {
  ScoredByPeft scored;
  if (!scored.possible()) GTEST_SKIP() << "no Python with transformers and peft (FSLLM_TEST_PYTHON)";
  std::vector<std::pair<std::string, std::vector<std::string>>> const cases{
      {"llama", {}},
      {"gpt2", {}},
      {"mistral", {}},
      {"llama", {"federate.lora_aggregation", "fedsb"}},
      {"gpt2", {"federate.lora_aggregation", "fedsb", "train.optimizer", "{type: AdamW, lr: 0.001}"}}};
  std::vector<TempDir> dirs(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    auto const& [model, more] = cases[i];
    SmallRun small;
    small.model = model;
    small.adapter = model == "gpt2" ? "{r: 4, lora_alpha: 16}" : "{r: 3, lora_alpha: 8, use_rslora: True}";
    ASSERT_EQ(train(dirs[i], 2, small, more).exit_code, 0);
    scored.add(reference_dir(model), dirs[i] / "run/adapter");
  }
  scored.expect_equal();
}

TEST(Run, FullDiskLeavesTheLastCheckpointUsable) {
  TempDir dir;
  auto const disk = (dir / "disk").string();
  std::filesystem::create_directory(disk);
  if (geteuid() != 0 || mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=400k") != 0)
    GTEST_SKIP() << "a small disk needs root and mount";
  auto small = validated();
  small.rounds = 60;
  small.steps = 1;
  small.more = "early_stop: {patience: 0}\n";
  std::vector<std::string> const keep{"outdir", disk,          "checkpoint.keep_last",
                                      "100",    "data.shards", (dir / "shards").string()};
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  EXPECT_EQ(
      run(dir.path(), 2, {"fsllm_shard", "--cfg", config, "--out", (dir / "shards").string()}).exit_code, 0);
  auto const full = train(dir, 2, small, keep);
  EXPECT_EQ(full.exit_code, 2) << full.out;
  EXPECT_THAT(full.err, testing::HasSubstr("No space left on device"));
  EXPECT_EQ(mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=20m"), 0);
  auto resume = keep;
  resume.emplace_back("--resume");
  auto const resumed = train(dir, 2, small, resume);
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.out, testing::HasSubstr("continuing after round"));
  TempDir whole;
  EXPECT_EQ(train(whole, 0, small).exit_code, 0);
  EXPECT_TRUE(read_text(disk + "/run/adapter/adapter_model.safetensors") ==
              read_text(whole / "run/adapter/adapter_model.safetensors"));
  umount(disk.c_str());
}

TEST(CommandLine, Informs) {
  TempDir dir;
  EXPECT_THAT(run(dir.path(), 0, {"fsllm_hpc", "--version"}).out, testing::HasSubstr("LibTorch"));
  EXPECT_THAT(run(dir.path(), 0, {"fsllm_hpc", "--help"}).out, testing::HasSubstr("--cfg"));
  EXPECT_THAT(run(dir.path(), 0, {"fsllm_hpc", "--describe", "train.optimizer.lr"}).out,
              testing::HasSubstr("default 0.1, at least 0"));
  auto const schema = nlohmann::json::parse(run(dir.path(), 0, {"fsllm_hpc", "--print-schema"}).out);
  EXPECT_EQ(schema.at("properties").at("federate").at("properties").at("total_round_num").at("type"),
            (nlohmann::json{"integer", "null"}));
  for (auto const* program : {"fsllm_shard", "fsllm_eval", "fsllm_export", "fsllm_inspect", "fsllm_serve",
                              "fsllm_chat", "fsllm_sweep"})
    EXPECT_THAT(run(dir.path(), 0, {program, "--help"}).out, testing::HasSubstr("Options"));
}

TEST(CommandLine, ChecksWithoutTraining) {
  TempDir dir;
  auto const config = write_config(dir.path(), SmallRun{}.yaml(dir.path())).string();
  auto const outcome = run(dir.path(), 2, {"fsllm_hpc", "--cfg", config, "--check"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, testing::HasSubstr("3 clients"));
  EXPECT_FALSE(std::filesystem::exists(dir / "run"));
  auto const printed = run(dir.path(), 0, {"fsllm_hpc", "--cfg", config, "--print-config", "seed=7"});
  EXPECT_THAT(printed.out, testing::HasSubstr("seed: 7"));
}

TEST(Unseen, ClientsAreEvaluatedApartAndNeverTrain) {
  TempDir dir;
  SmallRun small;
  small.splits = "[0.6, 0.4, 0.0]";
  for (auto const* method : {"fedavg", "local"}) {
    std::string first;
    for (int const ranks : {1, 2}) {
      auto const name = std::string(method) + std::to_string(ranks);
      auto const outcome =
          run(dir.path(), ranks,
              {"fsllm_hpc", "--cfg", write_config(dir.path(), small.yaml(dir.path())).string(), "expname",
               name, "federate.method", method, "federate.unseen_clients_rate", "0.4"});
      ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
      int64_t unseen = 0;
      int rounds = 0;
      for (auto const& event : read_events(dir.path() / name / "metrics.jsonl")) {
        EXPECT_EQ(event.at("val_unseen").at("clients"), 1);
        EXPECT_EQ(event.at("val").at("clients"), 2);
        if (event.at("event") != "round") continue;
        ++rounds;
        EXPECT_EQ(event.at("train").at("clients"), 2);
      }
      for (auto const& line : read_events(dir.path() / name / "metrics_clients.jsonl")) {
        bool const apart = line.contains("val_unseen");
        if (apart && unseen == 0) unseen = line.at("client").get<int64_t>();
        EXPECT_EQ(line.at("client") == unseen, apart);
        EXPECT_NE(line.contains("val"), apart);
        EXPECT_EQ(line.contains("train"), !apart && line.at("round") != 0);
      }
      EXPECT_EQ(rounds, small.rounds);
      auto const record = training_record(dir.path() / name / "metrics.jsonl");
      if (first.empty()) first = record;
      EXPECT_EQ(record, first);
    }
  }
  auto const all = run(dir.path(), 1,
                       {"fsllm_hpc", "--cfg", write_config(dir.path(), small.yaml(dir.path())).string(),
                        "expname", "none", "federate.unseen_clients_rate", "1"});
  EXPECT_EQ(all.exit_code, 2);
  EXPECT_THAT(all.err + all.out,
              testing::HasSubstr("federate.unseen_clients_rate = 1 (of 3 clients none would train)"));
}

}  // namespace
}  // namespace fsllm::test
