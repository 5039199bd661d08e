// SPDX-License-Identifier: Apache-2.0
// Owners of data shard for themselves; each rank runs in its owner's folder and sees no other.
#include <fstream>

#include "federation.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

class ShardRoots : public testing::Test {
 protected:
  /// Owner 0 has two clients, owner 1 one; the rows are those of the fixture.
  void SetUp() override {
    auto const rows = read_text(reference_dir("federated") / "rows.jsonl");
    for (int owner : {0, 1}) {
      auto const folder = dir_ / ("owner" + std::to_string(owner));
      fs::create_directories(folder);
      std::ofstream out(folder / "rows.jsonl");
      std::istringstream lines(rows);
      int number = 0;
      for (std::string line; std::getline(lines, line); ++number)
        if (number % 2 == owner) out << line << "\n";
      out.close();
      auto const made = run(dir_.path(), 0,
                            {"fsllm_shard", "--data", "rows.jsonl", "--root", folder.string(), "--model",
                             reference_dir("llama").string(), "--clients", std::to_string(2 - owner),
                             "--splitter", "iid", "--out", (folder / "shards").string(),
                             "--set=data.splits=[1.0,0.0,0.0]", "--set=data.root=" + folder.string()});
      ASSERT_EQ(made.exit_code, 0) << made.err << made.out;
    }
    SmallRun small;
    small.more = "hpc: {shard_roots: [shards]}\n";
    auto yaml = small.yaml(dir_.path());
    config_ = write_config(dir_.path(), yaml).string();
  }
  /// Two ranks, each in its owner's folder.
  Outcome train(std::string const& name, std::vector<std::string> const& more = {}) {
    std::vector<std::string> words{"fsllm_hpc", "--cfg", config_, "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run_apart(dir_.path(), {dir_ / "owner0", dir_ / "owner1"}, words);
  }
  TempDir dir_;
  std::string config_;
};

TEST_F(ShardRoots, EachRankOpensItsOwnersShardsOnly) {
  auto const apart = train("apart");
  ASSERT_EQ(apart.exit_code, 0) << apart.err << apart.out;
  EXPECT_THAT(apart.out, testing::HasSubstr("clients are numbered in the order of ranks"));
  EXPECT_THAT(apart.out, testing::HasSubstr("3 clients, "));

  // The same clients in one folder, under the ids that they got.
  fs::create_directories(dir_ / "all");
  auto const roots = "hpc: {shard_roots: [" + (dir_ / "owner0/shards").string() + ", " +
                     (dir_ / "owner1/shards").string() + "]}\n";
  SmallRun small;
  small.more = roots;
  auto const config = write_config(dir_ / "all", small.yaml(dir_.path())).string();
  auto const refused = run(dir_.path(), 1, {"fsllm_hpc", "--cfg", config, "expname", "alone"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err,
              testing::HasSubstr("hpc.shard_roots = 2 folders (1 ranks: one process would open the "
                                 "shards of several owners). Start one rank an owner: mpirun -np 2."));
  auto const alone = run(dir_.path(), 3, {"fsllm_hpc", "--cfg", config, "expname", "alone"});
  ASSERT_EQ(alone.exit_code, 0) << alone.err << alone.out;
  auto const adapter = [&](char const* name) {
    return read_text(dir_.path() / name / "adapter/adapter_model.safetensors");
  };
  EXPECT_EQ(adapter("apart"), adapter("alone"));
  EXPECT_EQ(training_record(dir_.path() / "apart/metrics.jsonl"),
            training_record(dir_.path() / "alone/metrics.jsonl"));
}

TEST_F(ShardRoots, AMissingRootNamesItsRank) {
  fs::remove_all(dir_ / "owner1/shards");
  auto const outcome = train("apart");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err + outcome.out, testing::HasSubstr("rank 1: shards holds no index.json"));
}

TEST_F(ShardRoots, ConflictsAreExplained) {
  auto const both = train("both", {"data.shards", "elsewhere"});
  EXPECT_EQ(both.exit_code, 2);
  EXPECT_THAT(both.err + both.out,
              testing::HasSubstr("data.shards = elsewhere (hpc.shard_roots names the shards already)"));
  auto const global = train("global", {"federate.method", "global"});
  EXPECT_EQ(global.exit_code, 2);
  EXPECT_THAT(global.err + global.out, testing::HasSubstr("no rank may read the rows of all clients"));
}

}  // namespace
}  // namespace fsllm::test
