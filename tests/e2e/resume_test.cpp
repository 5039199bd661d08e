// SPDX-License-Identifier: Apache-2.0
// A run goes on with what it began with: settings of clients, shards, the base model, and what computes.
#include <fstream>
#include <future>
#include <thread>

#include "federation.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

/// Three clients on a model of their own, which the tests change.
class ResumeInputs : public testing::Test {
 protected:
  ResumeInputs() {
    fs::copy(reference_dir("llama"), dir_ / "model");
    std::ofstream(dir_ / "clients.yaml") << "client_2: {train: {optimizer: {lr: 0.1}}}\n";
  }
  Outcome train(std::string const& name, std::vector<std::string> const& more = {}) {
    SmallRun small;
    small.splits = "[0.8, 0.2, 0.0]";
    std::vector<std::string> words{"fsllm_hpc",
                                   "--cfg",
                                   write_config(dir_.path(), small.yaml(dir_.path())).string(),
                                   "model.type",
                                   (dir_ / "model").string(),
                                   "expname",
                                   name};
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = run(dir_.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    return outcome;
  }
  /// The run as it was after its second round of three.
  void go_back(std::string const& name) {
    fs::remove_all(dir_ / name / "checkpoints/round_000003");
    fs::remove_all(dir_ / name / "adapter");
  }
  Outcome resume(std::string const& name, std::vector<std::string> const& more = {}, int np = 0) {
    std::vector<std::string> words{"fsllm_hpc", "--resume", (dir_ / name).string()};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  std::string adapter(std::string const& name) {
    return read_text(dir_ / name / "adapter/adapter_model.safetensors");
  }
  void expect_refused(Outcome const& outcome, std::string const& said) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err << outcome.out;
    EXPECT_THAT(outcome.err, testing::HasSubstr(said));
  }
  TempDir dir_;
};

TEST_F(ResumeInputs, SettingsOfClientsStayInForce) {
  auto const clients = (dir_ / "clients.yaml").string();
  train("plain");
  train("whole", {"--client_cfg", clients});
  ASSERT_NE(adapter("plain"), adapter("whole"));
  train("a", {"--client_cfg", clients});
  for (auto const& more : {std::vector<std::string>{}, {"--client_cfg", clients}}) {
    go_back("a");
    auto const outcome = resume("a", more, 2);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_TRUE(adapter("a") == adapter("whole"));
  }
  go_back("a");
  std::ofstream(dir_ / "other.yaml") << "client_2: {train: {optimizer: {lr: 0.2}}}\n";
  expect_refused(resume("a", {"--client_cfg", (dir_ / "other.yaml").string()}),
                 "--resume with other inputs: client_cfg client_2.train.optimizer.lr (0.1 before, 0.2 now)");
  go_back("plain");
  expect_refused(resume("plain", {"--client_cfg", clients}),
                 "client_cfg client_2.train.optimizer.lr (none before, 0.1 now)");
  EXPECT_EQ(resume("plain").exit_code, 0);
}

/// Changes the last byte of a file, where it lies.
void change_end(fs::path const& file) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(-2, std::ios::end);
  char byte = 0;
  stream.get(byte);
  stream.seekp(-2, std::ios::end);
  stream.put(static_cast<char>(byte ^ 1));
}

TEST_F(ResumeInputs, AnotherModelIsRefused) {
  train("a");
  go_back("a");
  change_end(dir_ / "model/model.safetensors");
  for (int const np : {0, 2})
    expect_refused(resume("a", {}, np), "--resume with other inputs: model model.safetensors (");
  change_end(dir_ / "model/model.safetensors");
  EXPECT_EQ(resume("a").exit_code, 0);
}

TEST_F(ResumeInputs, OtherShardsAreRefused) {
  auto const shard = [&](std::string const& seed) {
    fs::remove_all(dir_ / "shards");
    auto const config = write_config(dir_.path(), SmallRun{.splits = "[0.8, 0.2, 0.0]"}.yaml(dir_.path()));
    auto const outcome =
        run(dir_.path(), 0,
            {"fsllm_shard", "--cfg", config.string(), "--out", (dir_ / "shards").string(), "seed", seed});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  };
  shard("0");
  train("a", {"data.shards", (dir_ / "shards").string()});
  go_back("a");
  shard("1");
  expect_refused(resume("a"), "--resume with other inputs: shards (");
  shard("0");
  EXPECT_EQ(resume("a").exit_code, 0);
}

TEST_F(ResumeInputs, TheAdapterToStartFromIsPartOfTheRun) {
  train("first");
  fs::rename(dir_ / "first/adapter", dir_ / "start");
  SmallRun small;
  small.init_from = (dir_ / "start").string();
  auto const config = write_config(dir_.path(), small.yaml(dir_.path())).string();
  ASSERT_EQ(run(dir_.path(), 0, {"fsllm_hpc", "--cfg", config, "expname", "a"}).exit_code, 0);
  go_back("a");
  change_end(dir_ / "start/adapter_model.safetensors");
  expect_refused(resume("a"), "--resume with other inputs: init_from adapter_model.safetensors (");
}

TEST_F(ResumeInputs, AKeyThatCameLaterHasItsDefault) {
  train("a");
  go_back("a");
  auto text = read_text(dir_ / "a/config.yaml");
  std::ofstream(dir_ / "all.yaml") << text;
  for (auto const* key :
       {"max_file_bytes", "keep_optimizer", "stall_warning_s", "clients_per_pass", "retry_on_nan_loss"}) {
    auto const at = text.find(std::string(" ") + key + ":");
    ASSERT_NE(at, std::string::npos) << key;
    auto const begin = text.rfind('\n', at);
    text.erase(begin, text.find('\n', at) - begin);
  }
  std::ofstream(dir_ / "a/config.yaml") << text;
  // All keys of this version are given, as by a resolved configuration.
  auto const config = (dir_ / "all.yaml").string();
  std::vector<std::string> const words{
      "fsllm_hpc", "--cfg", config, "--resume", "model.type", (dir_ / "model").string(), "expname", "a"};
  auto other = words;
  other.insert(other.end(), {"data.max_file_bytes", "123456789"});
  expect_refused(run(dir_.path(), 0, other), "data.max_file_bytes (absent before, 123456789 now)");
  other.insert(other.end(), {"data.max_file_bytes", "68719476736", "federate.keep_optimizer", "True"});
  expect_refused(run(dir_.path(), 0, other), "federate.keep_optimizer (absent before, true now)");
  auto const outcome = run(dir_.path(), 0, words);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
}

TEST_F(ResumeInputs, ARunThatHasEndedIsLeftAsItIs) {
  train("a");
  auto const before = file_checksums(dir_ / "a");
  for (int const np : {0, 2}) {
    auto const outcome = resume("a", {}, np);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.out + outcome.err, testing::HasSubstr("the run has ended after 3 rounds"));
    auto after = file_checksums(dir_ / "a");
    after["exp_print.log"] = before.at("exp_print.log");  // it says so too
    EXPECT_EQ(after, before);
  }
  ASSERT_EQ(resume("a", {"federate.total_round_num=4"}).exit_code, 0);
  EXPECT_EQ(nlohmann::json::parse(read_text(dir_ / "a/summary.json")).at("round"), 4);
}

TEST_F(ResumeInputs, WhatIsNoRunIsNamed) {
  for (int const np : {0, 2})
    expect_refused(resume("NOSUCH", {}, np),
                   "NOSUCH holds no run to continue (there is no such folder). Give --resume a run");
  fs::create_directory(dir_ / "empty");
  expect_refused(resume("empty"), "empty holds no run to continue (no config.yaml there)");
}

TEST_F(ResumeInputs, WhatComputesIsRecordedAndCompared) {
  train("a");
  auto const record = [&] { return nlohmann::json::parse(read_text(dir_ / "a/run.json")); };
  auto const first = record().at("computed_on");
  ASSERT_EQ(first.size(), 1U);
  for (auto const* key :
       {"fsllm_hpc", "processor", "instructions", "libtorch", "math_library", "matmul", "threads"})
    EXPECT_TRUE(first[0].contains(key)) << key;
  go_back("a");
  setenv("ATEN_CPU_CAPABILITY", "avx2", 1);
  auto const outcome = resume("a");
  unsetenv("ATEN_CPU_CAPABILITY");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out + outcome.err,
              testing::HasSubstr("environment ATEN_CPU_CAPABILITY (none before, avx2 now)"));
  ASSERT_EQ(record().at("computed_on").size(), 2U);
  EXPECT_EQ(record().at("computed_on")[1].at("after_round"), 2);
}

/// Weights are mapped: a change in place reaches the running model.
TEST_F(ResumeInputs, AModelThatChangesDuringTheRunEndsIt) {
  SmallRun small;
  small.rounds = 400;
  auto const config = write_config(dir_.path(), small.yaml(dir_.path())).string();
  auto running = std::async(std::launch::async, [&] {
    return run(dir_.path(), 2,
               {"fsllm_hpc", "--cfg", config, "model.type", (dir_ / "model").string(), "expname", "a"});
  });
  while (!fs::exists(dir_ / "a/checkpoints/round_000001") &&
         running.wait_for(std::chrono::milliseconds(2)) == std::future_status::timeout) {
  }
  change_end(dir_ / "model/model.safetensors");
  expect_refused(running.get(), "model.safetensors changed while the run was reading it");
  change_end(dir_ / "model/model.safetensors");
  EXPECT_EQ(resume("a", {"federate.total_round_num=1"}).exit_code, 0);
}

}  // namespace
}  // namespace fsllm::test
