// SPDX-License-Identifier: Apache-2.0
// Runs that are told to stop in the middle of a round, by signals or by the end of their Slurm job.
#include <gmock/gmock.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <thread>

#include "federation.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int kStopped = 85, kNothingKept = 143;
using Words = std::vector<std::string>;

class Preempted : public testing::Test {
 protected:
  /// Five clients, whose turns take some hundred steps.
  std::string config(fs::path const& dir) const {
    SmallRun small;
    small.splits = "[0.8, 0.2, 0.0]";
    small.adapter = "{r: 4, lora_alpha: 8, lora_dropout: 0.2, target_modules: [q_proj, v_proj]}";
    small.optimizer = "{type: AdamW, lr: 0.003}";
    small.shuffle = true;
    small.rounds = 2;
    small.steps = steps_;
    small.more = "early_stop: {patience: 0}\n";
    return write_config(dir, small.yaml(dir)).string();
  }
  Words words(fs::path const& dir, Words const& more) const {
    Words all{"fsllm_hpc",          "--cfg", config(dir), "federate.client_num", "5", "data.splitter", "iid",
              "data.splitter_args", "[]"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::string said(fs::path const& dir) const { return read_text(dir / "run/exp_print.log"); }
  std::string result(fs::path const& dir) const {
    std::string all;
    for (auto const& [name, checksum] : file_checksums(dir / "run/adapter"))
      all.append(name).append(checksum);
    return all + training_record(dir / "run/metrics.jsonl");
  }
  std::string undisturbed(Words const& more) {
    TempDir dir;
    auto const outcome = run(dir.path(), 2, words(dir.path(), more));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return result(dir.path());
  }
  /// Starts the run, or goes on with it, and tells it to stop a while after `mark` stands in its log.
  void stop(fs::path const& dir, int np, Words const& more, int number, std::string const& mark) {
    auto const before = said(dir).size();
    Background job(dir, np, words(dir, more));
    ASSERT_TRUE(comes([&] { return said(dir).find(mark, before) != std::string::npos; })) << said(dir);
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    // A batch system, a launcher and a script may each send one; mpirun itself ends at once at a second
    // SIGTERM.
    for (int i = 0; i < (number == SIGUSR1 ? 3 : 1); ++i) job.signal(number);
    ASSERT_TRUE(comes([&] { return said(dir).find("stopped by a signal", before) != std::string::npos; }))
        << said(dir);
    auto const code = job.ends_within(std::chrono::seconds(60));
    if (np == 0) {  // mpirun has codes of its own
      EXPECT_EQ(code, kNothingKept);
    }
  }
  void expect_finish(fs::path const& dir, int np, Words more, std::string const& expected) {
    more.push_back("--resume");
    auto const outcome = run(dir, np, words(dir, more));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_FALSE(fs::exists(dir / "run/unfinished"));
    EXPECT_EQ(result(dir), expected);
  }

  int steps_ = 500;
};

constexpr char const* kGoesOn = "had ended before the stop";

/// Stopped in the first round, and again in the same one: no turn that has ended is trained again, and those
/// that were under way go on, wherever their clients are then.
TEST_F(Preempted, TwiceInARoundEndsInTheSameBits) {
  for (Words const& more :
       {Words{}, Words{"federate.keep_optimizer", "True"}, Words{"federate.method", "scaffold"},
        Words{"train.optimizer.type", "MeZO"}, Words{"hpc.reduce", "native"},
        Words{"hpo.fedex.use", "True", "hpo.fedex.ss", "{train.optimizer.lr: [0.01, 0.1]}", "hpo.fedex.diff",
              "True"}}) {
    SCOPED_TRACE(testing::PrintToString(more));
    auto const expected = undisturbed(more);
    TempDir dir;
    stop(dir.path(), 2, more, SIGUSR1, "before training");
    ASSERT_TRUE(fs::exists(dir / "run/unfinished/round.json"));
    auto again = more;
    again.push_back("--resume");
    stop(dir.path(), 2, again, SIGUSR1, kGoesOn);
    expect_finish(dir.path(), more.empty() ? 3 : 2, more, expected);
  }
}

/// What keeps more than sums begins the round anew.
TEST_F(Preempted, WhereARoundCannotWaitItBeginsAnew) {
  Words const more{"aggregator.robust_rule", "median"};
  auto const expected = undisturbed(more);
  TempDir dir;
  stop(dir.path(), 0, more, SIGTERM, "before training");
  EXPECT_FALSE(fs::exists(dir / "run/unfinished"));
  expect_finish(dir.path(), 2, more, expected);
}

TEST_F(Preempted, DamagedFilesOfAnUnfinishedRoundAreToldOf) {
  auto const expected = undisturbed({});
  TempDir dir;
  stop(dir.path(), 2, {}, SIGUSR1, "before training");
  fs::resize_file(dir / "run/unfinished/rank_00001.safetensors", 100);
  expect_finish(dir.path(), 2, {}, expected);
  EXPECT_THAT(said(dir.path()), HasSubstr("rank_00001.safetensors is damaged or gone: round 1 begins anew"));
}

/// The time that is left is asked of the environment, or of squeue.
TEST_F(Preempted, BeforeTheTimeLimit) {
  steps_ = 2500;  // which take longer than the job has
  auto const expected = undisturbed({});
  for (bool const newer : {true, false}) {
    TempDir dir, bin;
    auto const end = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()) + 4;
    std::ofstream(bin / "squeue")
        << "#!/bin/sh\n[ \"$*\" = '--noheader --job 4711 --format %L' ] && echo 0:04\n";
    fs::permissions(bin / "squeue", fs::perms::owner_all);
    std::string const path = std::getenv("PATH");
    setenv("SLURM_JOB_ID", "4711", 1);
    setenv("PATH", (bin.path().string() + ":" + path).c_str(), 1);
    if (newer) setenv("SLURM_JOB_END_TIME", std::to_string(end).c_str(), 1);
    auto const outcome = run(dir.path(), 0, words(dir.path(), {"hpc.time_limit_margin_s", "3.5"}));
    for (auto const* name : {"SLURM_JOB_ID", "SLURM_JOB_END_TIME"}) unsetenv(name);
    setenv("PATH", path.c_str(), 1);
    EXPECT_EQ(outcome.exit_code, kStopped) << outcome.err;
    EXPECT_THAT(outcome.err + outcome.out, HasSubstr("stopped before the job's time limit"));
    expect_finish(dir.path(), 2, {"hpc.time_limit_margin_s", "3.5"}, expected);
  }
}

}  // namespace
}  // namespace fsllm::test
