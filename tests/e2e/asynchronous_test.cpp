// SPDX-License-Identifier: Apache-2.0
// Asynchronous runs by the program: what they are equal to, and how they go on.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "federation.hpp"

namespace fsllm::test {
namespace {

class Asynchronous : public testing::Test {
 protected:
  void write(SmallRun const& small) { config_ = write_config(dir_.path(), small.yaml(dir_.path())).string(); }
  std::vector<std::string> words(std::string const& name, std::vector<std::string> const& more) const {
    std::vector<std::string> all{"fsllm_hpc", "--cfg", config_, "expname", name};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  void train(std::string const& name, int np, std::vector<std::string> const& more) {
    auto const outcome = run(dir_.path(), np, words(name, more));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  }
  std::string adapter(std::string const& name) const {
    return read_text(dir_ / name / "adapter/adapter_model.safetensors");
  }
  std::string record(std::string const& name) const { return training_record(dir_ / name / "metrics.jsonl"); }

  TempDir dir_;
  std::string config_;
};

SmallRun with_held_out_rows() {
  SmallRun small;
  small.splits = "[0.8, 0.2, 0.0]";
  small.adapter = "{r: 4, lora_alpha: 8, lora_dropout: 0.2, target_modules: [q_proj, v_proj]}";
  small.more = "early_stop: {patience: 0}\n";
  return small;
}

TEST_F(Asynchronous, IsFedAvgWhereAllAreAwaited) {
  write(with_held_out_rows());
  train("fedavg", 0, {});
  train("asynchronous", 2,
        {"asyn.use", "True", "asyn.response_times", "[3]", "asyn.min_received_num", "3",
         "asyn.staleness_discount_factor", "0"});
  EXPECT_TRUE(adapter("asynchronous") == adapter("fedavg"));
  for (auto const& event : read_events(dir_ / "asynchronous/metrics.jsonl")) {
    if (event.at("event") != "round") continue;
    auto const& arrivals = event.at("asyn");
    EXPECT_EQ(arrivals.at("virtual_seconds"), 3 * event.at("round").get<int>());
    EXPECT_EQ(arrivals.at("staleness").at("max"), 0);
    EXPECT_EQ(arrivals.at("dropped"), 0);
  }
}

/// Clients 1 and 2 come every second, client 3 after ten: by then it is nine versions old.
TEST_F(Asynchronous, MetricsTellWhoWasLate) {
  auto small = with_held_out_rows();
  small.rounds = 11;
  small.steps = 1;
  write(small);
  std::vector<std::string> const asyn{"asyn.use", "True", "asyn.response_times", "[1, 1, 10]"};
  auto const last = [&](std::string const& name, std::string const& toleration) {
    auto more = asyn;
    more.insert(more.end(), {"asyn.staleness_toleration", toleration});
    train(name, 0, more);
    return read_events(dir_ / name / "metrics.jsonl").at(11).at("asyn");
  };
  auto const kept = last("kept", "-1"), dropped = last("dropped", "8");
  EXPECT_EQ(kept.at("virtual_seconds"), 11);
  EXPECT_EQ(kept.at("staleness").at("max"), 10);
  EXPECT_EQ(kept.at("staleness").at("mean"), 5);
  EXPECT_EQ(kept.at("dropped"), 0);
  EXPECT_EQ(dropped.at("staleness").at("max"), 0);
  EXPECT_EQ(dropped.at("dropped"), 1);
  EXPECT_NE(adapter("kept"), adapter("dropped"));
  auto const lines = read_events(dir_ / "kept/metrics_clients.jsonl");
  EXPECT_TRUE(std::ranges::any_of(lines, [](auto const& line) {
    return line.at("client") == 3 && line.contains("train") && line.at("train").at("staleness") == 10;
  }));
}

TEST_F(Asynchronous, KilledAndResumedIsBitwiseTheUninterruptedRun) {
  auto small = with_held_out_rows();
  small.rounds = 20;
  small.steps = 150;
  small.optimizer = "{type: AdamW, lr: 0.01}";
  small.more +=
      "asyn: {use: True, response_times: [1, 2.5, 4], min_received_num: 1, staleness_toleration: -1}\n"
      "fedopt: {use: True, optimizer: {type: SGD, lr: 1.0, momentum: 0.5}}\n";
  write(small);
  train("whole", 2, {});
  train("again", 2, {});
  EXPECT_TRUE(adapter("again") == adapter("whole")) << "the same run twice";
  EXPECT_EQ(record("again"), record("whole"));
  for (int const np_after : {3, 0}) {
    auto const name = "killed" + std::to_string(np_after);
    {
      Background running(dir_.path(), 2, words(name, {}));
      while (running.running() && !std::filesystem::exists(dir_ / name / "checkpoints/round_000003"))
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ASSERT_TRUE(running.running()) << "the run ended before it could be killed";
      running.kill_hard();
    }
    ASSERT_FALSE(std::filesystem::exists(dir_ / name / "adapter")) << "killed too late";
    train(name, np_after, {"--resume"});
    EXPECT_TRUE(adapter(name) == adapter("whole")) << np_after << " ranks";
    EXPECT_EQ(record(name), record("whole")) << np_after << " ranks";
  }
}

/// Where all are awaited, real time too is FedAvg bit by bit; so one can tell what a run that was stopped, by
/// a signal or a kill, goes on to.
TEST_F(Asynchronous, InRealTimeStoppedAndResumedIsFedAvgWhereAllAreAwaited) {
  auto small = with_held_out_rows();
  small.rounds = 20;
  small.steps = 150;
  write(small);
  train("fedavg", 0, {});
  std::vector<std::string> const real{"asyn.use", "True", "asyn.clock", "real", "asyn.min_received_num", "3"};
  for (std::string const end : {"killed", "signalled"}) {
    {
      Background running(dir_.path(), 3, words(end, real));
      while (running.running() && !std::filesystem::exists(dir_ / end / "checkpoints/round_000003"))
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ASSERT_TRUE(running.running()) << "the run ended before it could be stopped";
      if (end == "killed")
        running.kill_hard();
      else
        running.signal(SIGTERM);
      while (running.running()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ASSERT_FALSE(std::filesystem::exists(dir_ / end / "adapter")) << "stopped too late";
    auto resumed = real;
    resumed.emplace_back("--resume");
    train(end, 2, resumed);
    EXPECT_TRUE(adapter(end) == adapter("fedavg")) << end;
    for (auto const& event : read_events(dir_ / end / "metrics.jsonl"))
      EXPECT_TRUE(event.at("event") != "round" || !event.at("asyn").contains("virtual_seconds"));
  }
}

}  // namespace
}  // namespace fsllm::test
