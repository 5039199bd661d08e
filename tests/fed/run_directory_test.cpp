// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/run_directory.hpp"

#include <fstream>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

TEST(RunDirectory, RefusesToMixTwoRuns) {
  test::TempDir dir;
  RunDirectory const run{dir / "exp"};
  run.start(false, {})->write("config.yaml", "seed: 1\n");
  std::ofstream(dir / "exp/notes.txt") << "mine";
  EXPECT_ERROR(run.start(false, {}), "--resume, replace it with --overwrite, or choose another expname");
  run.start(true, {});
  EXPECT_FALSE(run.holds_run());
  EXPECT_TRUE(std::filesystem::exists(dir / "exp/notes.txt"));
}

TEST(RunDirectory, WhatTheProgramDidNotWriteStays) {
  test::TempDir dir;
  RunDirectory const run{dir / "exp"};
  make_folder(run.adapter());
  write_file_atomic(run.adapter() / "notes.txt", "mine");
  EXPECT_ERROR(run.start(true, {}), "already holds adapter/notes.txt (this program did not write it");
  std::filesystem::remove_all(run.adapter());
  run.start(false, {})->write("config.yaml", "");
  {
    auto const folder = run.resume();
    auto const made = folder->fresh_folder();
    write_file_atomic(made / "adapter_config.json", "{}");
    folder->move_in(made, "adapter", {"adapter_config.json"});
  }
  write_file_atomic(run.adapter() / "notes.txt", "mine");
  EXPECT_ERROR(run.start(true, {}), "already holds adapter/notes.txt");
  EXPECT_TRUE(std::filesystem::exists(run.adapter() / "adapter_config.json"))
      << "refused before anything was removed";
  std::filesystem::remove(run.adapter() / "notes.txt");
  EXPECT_ERROR(
      run.start(true, {{"llm.adapter.init_from", run.adapter()}}),
      "llm.adapter.init_from = " + run.adapter().string() + " (the run writes its own adapter there)");
  run.start(true, {{"data.root", dir.path()}});
  EXPECT_FALSE(std::filesystem::exists(run.adapter()));
}

TEST(RunDirectory, WithoutAListNothingIsRemoved) {
  test::TempDir dir;
  RunDirectory const run{dir.path()};
  write_file_atomic(run.config(), "seed: 1\n");
  write_file_atomic(run.summary(), "{}");
  EXPECT_ERROR(run.start(true, {}), "the list of what a run wrote is not there");
  EXPECT_TRUE(std::filesystem::exists(run.summary()));
  run.resume();  // a run of an earlier version
  EXPECT_TRUE(std::filesystem::exists(run.summary()));
}

TEST(RunDirectory, ShardsOfAStartThatFailedStay) {
  test::TempDir dir;
  RunDirectory const run{dir / "exp"};
  run.start(false, {})->own({"shards/client_00001.h5"});
  make_folder(run.shards());
  write_file_atomic(run.shards() / "client_00001.h5", "x");
  run.start(false, {})->own({"shards/client_00001.h5", "adapter/x"});
  EXPECT_TRUE(std::filesystem::exists(run.shards() / "client_00001.h5"));
}

TEST(RunDirectory, RewindsItsLogs) {
  test::TempDir dir;
  RunDirectory const run{dir.path()};
  std::ofstream(run.metrics())
      << "{\"event\":\"start\",\"round\":0}\n{\"event\":\"round\",\"round\":1}\n"
         "{\"event\":\"round\",\"round\":2}\n{\"event\":\"end\",\"round\":2}\n{\"event\":\"rou";
  std::ofstream(run.eval_results())
      << "{'Role': 'Server #', 'Round': 1, 'x': {}}\n{'Role': 'Server #', 'Round': 2, 'x': {}}\n{'Role'";
  std::ofstream(run.client_metrics()) << "{\"round\":1,\"client\":9}\n{\"round\":2,\"client\":9}\n";
  std::ofstream(run.rank_metrics()) << "{\"round\":1,\"rank\":0}\n{\"round\":2,\"rank\":0}\n";
  OutputFolder folder(dir.path());
  folder.adopt({"metrics.jsonl", "metrics_clients.jsonl", "metrics_ranks.jsonl", "eval_results.log"});
  rewind_logs(folder, 1);
  EXPECT_EQ(read_file(run.rank_metrics()), "{\"round\":1,\"rank\":0}\n");
  EXPECT_EQ(read_file(run.client_metrics()), "{\"round\":1,\"client\":9}\n");
  EXPECT_EQ(read_file(run.metrics()),
            "{\"event\":\"start\",\"round\":0}\n{\"event\":\"round\",\"round\":1}\n");
  EXPECT_EQ(read_file(run.eval_results()), "{'Role': 'Server #', 'Round': 1, 'x': {}}\n");
}

}  // namespace
}  // namespace fsllm
