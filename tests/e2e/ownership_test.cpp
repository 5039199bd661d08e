// SPDX-License-Identifier: Apache-2.0
// Files of others, two jobs in one place, outputs, signals: nothing is lost, everything is named.
#include <fmt/core.h>
#include <signal.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <thread>

#include "damage.hpp"

namespace fsllm::test {
namespace {

std::vector<std::string> files_in(fs::path const& dir) {
  std::vector<std::string> files;
  for (auto const& entry : fs::recursive_directory_iterator(dir))
    if (entry.is_regular_file())
      files.push_back(entry.path().lexically_relative(dir).string() + "=" + read_text(entry.path()));
  std::sort(files.begin(), files.end());
  return files;
}

class FilesOfOthers : public testing::Test {
 protected:
  FilesOfOthers() {
    prepare(dir_.path());
    config_ = write_config(dir_.path(), yaml(dir_.path())).string();
  }
  Outcome train(std::vector<std::string> more, int np = 0) {
    more.insert(more.begin(), {"fsllm_hpc", "--cfg", config_});
    return run(dir_.path(), np, more);
  }
  Outcome shard(std::string const& out, int np = 0) {
    return run(dir_.path(), np, {"fsllm_shard", "--cfg", config_, "--out", out});
  }
  TempDir dir_;
  std::string config_;
};

TEST_F(FilesOfOthers, AFolderWithOtherFilesIsRefusedOrLeftAsItIs) {
  for (auto const* name :
       {"adapter/notes.txt", "model/config.json", "shards/x.h5", "best/x",
        "checkpoints/round_000001/state.h5", "metrics.jsonl", "summary.json", "exp_print.log"}) {
    auto const file = dir_ / "run" / name;
    fs::create_directories(file.parent_path());
    write(file, "mine");
    for (auto const& option : {std::vector<std::string>{}, {"--overwrite"}})
      expect_message(train(option), fmt::format("run already holds {} (this program did not write it", name));
    EXPECT_EQ(read_text(file), "mine");
    fs::remove_all(dir_ / "run");
  }
  fs::create_directories(dir_ / "run/own");
  write(dir_ / "run/own/notes.txt", "mine");
  EXPECT_EQ(train({}).exit_code, 0);
  EXPECT_EQ(train({"--overwrite"}, 2).exit_code, 0);
  EXPECT_EQ(read_text(dir_ / "run/own/notes.txt"), "mine");
}

TEST_F(FilesOfOthers, InputsInsideOfTheRunAreNeverRemoved) {
  ASSERT_EQ(train({}).exit_code, 0);
  auto const before = files_in(dir_ / "run");
  auto const folder = (dir_ / "run").string();
  expect_message(train({"--overwrite", "llm.adapter.init_from", folder + "/adapter"}, 2),
                 "llm.adapter.init_from = " + folder + "/adapter (the run writes its own adapter there)");
  expect_message(train({"--overwrite", "data.shards", folder + "/shards"}), "data.shards = " + folder);
  expect_message(run(dir_.path(), 0, {"fsllm_hpc", "--cfg", folder + "/config.yaml", "--overwrite"}),
                 "--cfg = " + folder);
  EXPECT_EQ(files_in(dir_ / "run"), before);
}

TEST_F(FilesOfOthers, ARefusedResumeMakesNothingTheProgramsOwn) {
  fs::create_directories(dir_ / "run/model");
  write(dir_ / "run/config.yaml", "mine: 1\n");
  write(dir_ / "run/model/weights", "mine");
  for (auto const* option : {"--resume", "--overwrite"}) EXPECT_EQ(train({option}).exit_code, 2) << option;
  EXPECT_EQ(read_text(dir_ / "run/model/weights") + read_text(dir_ / "run/config.yaml"), "minemine: 1\n");
}

TEST_F(FilesOfOthers, ShardingKeepsThem) {
  fs::create_directory(dir_ / "out");
  write(dir_ / "out/embeddings.h5", "mine");
  ASSERT_EQ(shard((dir_ / "out").string(), 2).exit_code, 0);
  EXPECT_EQ(read_text(dir_ / "out/embeddings.h5"), "mine");
  fs::create_directory(dir_ / "other");
  write(dir_ / "other/client_00002.h5", "mine");
  expect_message(shard((dir_ / "other").string(), 2),
                 "other already holds client_00002.h5 (this program did not write it");
  EXPECT_EQ(read_text(dir_ / "other/client_00002.h5"), "mine");
}

TEST_F(FilesOfOthers, ResultsOfClientsAreForTheirOwner) {
  ASSERT_EQ(train({}).exit_code, 0);
  for (auto const& entry : fs::recursive_directory_iterator(dir_ / "run/shards"))
    EXPECT_EQ(entry.status().permissions() & fs::perms(0077), fs::perms::none) << entry.path();
  EXPECT_EQ(fs::status(dir_ / "run/checkpoints").permissions() & fs::perms(0077), fs::perms::none);
}

/// Long enough that a second job meets it.
std::vector<std::string> long_run(std::string const& config) {
  return {"fsllm_hpc", "--cfg",
          config,      "federate.total_round_num",
          "100000",    "early_stop.patience",
          "0",         "checkpoint.every_rounds",
          "5"};
}

TEST_F(FilesOfOthers, TheSecondJobIsRefusedAndTheFirstUnharmed) {
  Background first(dir_.path(), 2, long_run(config_));
  ASSERT_TRUE(comes([&] { return fs::exists(dir_ / "run/checkpoints/round_000005/manifest.json"); }));
  for (auto const& option : {std::vector<std::string>{"--resume"}, {"--overwrite"}})
    for (int np : {0, 2}) {
      fs::create_directories(dir_ / "second");
      auto words = long_run(config_);
      words.insert(words.end(), option.begin(), option.end());
      expect_message(run(dir_ / "second", np, words), "run is in use by process ");
    }
  EXPECT_TRUE(first.running());
  first.kill_hard();
  auto const outcome = train({"federate.total_round_num", "100000", "early_stop.patience", "0",
                              "checkpoint.every_rounds", "5", "--resume", "--check"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
}

TEST_F(FilesOfOthers, ARunDirectoryThatDisappearsIsAnError) {
  Background job(dir_.path(), 2, long_run(config_));
  ASSERT_TRUE(comes([&] { return fs::exists(dir_ / "run/checkpoints/round_000005/manifest.json"); }));
  fs::rename(dir_ / "run", dir_ / "moved");
  EXPECT_TRUE(comes([&] { return !job.running(); }));
}

TEST_F(FilesOfOthers, ResponsesGoWhereTheyAreSent) {
  write(dir_ / "in.jsonl", R"({"id":1,"type":"loglikelihood_rolling","ids":[1,2,3,4]})"
                           "\n");
  auto const score = [&](std::string const& out, int np) {
    return run(dir_.path(), np,
               {"fsllm_eval", "--model", (dir_ / "model").string(), "--requests",
                (dir_ / "in.jsonl").string(), "--responses", out});
  };
  EXPECT_EQ(score("/dev/null", 2).exit_code, 0);
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  expect_message(score(dir_.path().string(), 2), "--responses " + dir_.path().string() + " (it is a folder)");
  expect_message(score((dir_ / "absent/out.jsonl").string(), 0), "cannot write ");
  auto const pipe = dir_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_message(score(pipe.string(), 0), "(nobody reads this pipe)");
}

}  // namespace
}  // namespace fsllm::test
