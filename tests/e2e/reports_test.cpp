// SPDX-License-Identifier: Apache-2.0
// What people look at: TensorBoard's event file, read back by the real package.
#include <fmt/core.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "preference.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// The Python of the tests, where it has `module`.
std::string python_with(std::string const& module) {
  char const* python = std::getenv("FSLLM_TEST_PYTHON");
  if (python == nullptr || *python == '\0') return "";
  auto const asked = fmt::format("{} -c 'import {}' 2> /dev/null", python, module);
  return std::system(asked.c_str()) == 0 ? python : "";
}

class TensorBoard : public testing::Test {
 protected:
  void SetUp() override {
    python_ = python_with("tensorboard");
    if (python_.empty()) GTEST_SKIP() << "no Python with tensorboard (FSLLM_TEST_PYTHON)";
    small_.splits = "[0.6, 0.2, 0.2]";
    small_.rounds = 6;
  }
  json event_file(std::string const& name) {
    auto const out = dir_ / "events.json", log = dir_ / "python.txt";
    auto const command =
        fmt::format("{} {} {} > {} 2> {}", python_, source_file("tests/e2e/read_event_file.py").string(),
                    (dir_ / name / "tb").string(), out.string(), log.string());
    EXPECT_EQ(std::system(command.c_str()), 0) << read_text(log);
    return json::parse(read_text(out));
  }
  /// Each loss of metrics.jsonl stands in the event file once, as float32, at its round; returns its points.
  size_t expect_losses(std::string const& name, std::string const& loss = "loss_per_token") {
    auto const file = event_file(name);
    EXPECT_EQ(file.at("files").size(), 1U);
    EXPECT_EQ(file.at("first"), "brain.Event:2");
    std::map<std::pair<std::string, int64_t>, double> points;
    double time = 0;
    for (auto const& point : file.at("points")) {
      auto const at = std::pair(point[0].get<std::string>(), point[1].get<int64_t>());
      EXPECT_FALSE(points.contains(at)) << at.first << " twice at " << at.second;
      points[at] = point[2];
      EXPECT_GE(point[3].get<double>(), time);
      time = point[3];
    }
    EXPECT_GT(time, 1.7e9);
    std::map<std::string, std::vector<int64_t>> steps;
    size_t losses = 0;
    for (auto const& event : read_events(dir_ / name / "metrics.jsonl")) {
      if (event.at("event") != "start" && event.at("event") != "round") continue;
      for (auto const* part : {"train", "val", "test"}) {
        if (!event.contains(part)) continue;
        auto const at = std::pair(fmt::format("{}/{}", part, loss), event.at("round").get<int64_t>());
        EXPECT_TRUE(points.contains(at)) << at.first << " at " << at.second;
        EXPECT_EQ(static_cast<float>(points[at]), event.at(part).at(loss).get<float>()) << at.first;
        steps[at.first].push_back(at.second);
        ++losses;
      }
      if (event.at("event") == "round") {
        auto const round = event.at("round").get<int64_t>();
        EXPECT_EQ(points.at({"comm/bytes_up", round}), event.at("bytes_up").get<float>());
        EXPECT_EQ(points.at({"memory/peak_rss_bytes", round}), event.at("peak_rss_bytes").get<float>());
        EXPECT_TRUE(points.contains({"train/tokens_per_second", round}));
      }
    }
    for (auto const& [tag, rounds] : steps) EXPECT_EQ(file.at("reloaded").at(tag), json(rounds)) << tag;
    return losses;
  }
  std::vector<std::string> words(std::vector<std::string> const& more) {
    std::vector<std::string> all{"fsllm_hpc", "--cfg",
                                 write_config(dir_.path(), small_.yaml(dir_.path())).string()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  TempDir dir_;
  SmallRun small_;
  std::string python_;
};

/// 6 rounds of three losses, and the evaluation before them.
TEST_F(TensorBoard, HasEveryRoundOnce) {
  auto const outcome = run(dir_.path(), 2, words({"expname", "run"}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(expect_losses("run"), 20U);
  auto const before = read_text(dir_ / "run/tb/events.out.tfevents.0.fsllm_hpc");
  ASSERT_EQ(run(dir_.path(), 0, {"fsllm_hpc", "--resume", (dir_ / "run").string()}).exit_code, 0);
  EXPECT_EQ(read_text(dir_ / "run/tb/events.out.tfevents.0.fsllm_hpc"), before);
  ASSERT_EQ(
      run(dir_.path(), 0, {"fsllm_hpc", "--resume", (dir_ / "run").string(), "federate.total_round_num", "8"})
          .exit_code,
      0);
  EXPECT_EQ(expect_losses("run"), 26U);
  EXPECT_TRUE(read_text(dir_ / "run/tb/events.out.tfevents.0.fsllm_hpc").starts_with(before))
      << "a TensorBoard that is open reads on";
}

TEST_F(TensorBoard, HasEveryRoundOnceAfterAKill) {
  small_.steps = 30;
  {
    Background running(dir_.path(), 2, words({"expname", "run"}));
    ASSERT_TRUE(comes([&] { return fs::exists(dir_ / "run/checkpoints/round_000003"); }));
    running.kill_hard();
  }
  ASSERT_FALSE(fs::exists(dir_ / "run/summary.json")) << "killed too late";
  // What a kill leaves: rounds after the checkpoint, and a line and a record that are not whole.
  std::ofstream(dir_ / "run/metrics.jsonl", std::ios::app) << R"({"event":"round","round":9,"train":{)";
  std::ofstream(dir_ / "run/tb/events.out.tfevents.0.fsllm_hpc", std::ios::app) << std::string(13, 'x');
  auto const outcome = run(dir_.path(), 3, {"fsllm_hpc", "--resume", (dir_ / "run").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(expect_losses("run"), 20U);
}

TEST_F(TensorBoard, PairsAndTheRunsOfEarlierVersions) {
  small_.rounds = 3;
  auto const outcome = run(dir_.path(), 0, words(on_pairs({"train.loss", "dpo", "expname", "pairs"})));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_GE(expect_losses("pairs", "loss_per_pair"), 6U);
  fs::remove_all(dir_ / "pairs/tb");
  fs::remove(dir_ / "pairs/metrics_ranks.jsonl");
  ASSERT_EQ(run(dir_.path(), 0,
                {"fsllm_hpc", "--resume", (dir_ / "pairs").string(), "federate.total_round_num", "4"})
                .exit_code,
            0);
  EXPECT_GE(expect_losses("pairs", "loss_per_pair"), 8U);
}

}  // namespace
}  // namespace fsllm::test
