// SPDX-License-Identifier: Apache-2.0
// Files that may not be read and folders that may not be written, by a user who is not root: one message that
// names the file and says "Permission denied", exit code 2.
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include "damage.hpp"

namespace fsllm::test {
namespace {

constexpr int kUnreadable = 0, kUnwritable = 0500;

/// What is closed, and the commands that must say so; all paths are relative to the fixture's folder.
struct Closed {
  std::string path;
  int mode;
  std::vector<std::vector<std::string>> commands;
};

using Words = std::vector<std::string>;

Words operator+(Words words, Words const& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

class Permissions : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    before_ = fs::current_path();
    dir_ = std::make_unique<TempDir>();
    auto const& dir = dir_->path();
    fs::current_path(dir);
    prepare(dir);
    write(dir / "run.yaml", yaml("."));
    write(dir / "clients.yaml", "client_1: {train: {optimizer: {lr: 0.1}}}\n");
    write(dir / "chat.jinja", "{% for m in messages %}{{ m['content'] }}{% endfor %}");
    write(dir / "in.jsonl", "{\"id\":1,\"type\":\"loglikelihood_rolling\",\"ids\":[1,2,3,4]}\n");
    write(dir / "rows.jsonl", "{\"text\":\"a\"}\n");
    fs::create_directory(dir / "closed");
    ASSERT_EQ(run(dir, 0, kTrain + Words{"expname", "done"}).exit_code, 0);
    ASSERT_EQ(run(dir, 0, {"fsllm_shard", "--cfg", "run.yaml", "--out", "shards"}).exit_code, 0);
    give_to_unprivileged_user(dir);
  }
  static void TearDownTestSuite() {
    fs::current_path(before_);
    dir_.reset();
  }

  static void expect_refused(Closed const& closed) {
    struct stat info {};
    ASSERT_EQ(::stat(closed.path.c_str(), &info), 0) << closed.path;
    ASSERT_EQ(::chmod(closed.path.c_str(), static_cast<mode_t>(closed.mode)), 0);
    for (auto const& words : closed.commands)
      for (int const np : {0, 2}) {
        SCOPED_TRACE(fmt::format("{} closed, np {}: {}", closed.path, np, fmt::join(words, " ")));
        auto const outcome = run_unprivileged(dir_->path(), np, words);
        bool const one_rank = words[0] == "fsllm_export" && np == 2;
        expect_message(outcome, one_rank ? "fsllm_export on 2 ranks" : "Permission denied");
        EXPECT_TRUE(one_rank || outcome.err.find(closed.path) != std::string::npos) << outcome.err;
        fs::remove_all("run");
      }
    ASSERT_EQ(::chmod(closed.path.c_str(), info.st_mode & 07777), 0);
  }

  static inline Words const kTrain{"fsllm_hpc", "--cfg", "run.yaml"},
      kShard{"fsllm_shard", "--cfg", "run.yaml"},
      kScore{"fsllm_eval", "--model", "model", "--requests", "in.jsonl"},
      kMerge{"fsllm_export", "--model", "model", "--adapter", "adapter", "--to", "merged"},
      kResume{"fsllm_hpc", "--cfg",   "run.yaml", "expname", "done", "federate.total_round_num",
              "2",         "--resume"};
  static inline std::unique_ptr<TempDir> dir_;
  static inline fs::path before_;
};

TEST_F(Permissions, OfConfigurationAndModel) {
  auto const train = kTrain, shard = kShard + Words{"--out", "out"},
             score = kScore + Words{"--responses", "out.jsonl"}, merge = kMerge + Words{"--out", "merged"};
  for (auto const& closed : std::vector<Closed>{
           {"run.yaml", kUnreadable, {train, shard}},
           {"clients.yaml", kUnreadable, {train + Words{"--client_cfg", "clients.yaml"}}},
           {"model", kUnreadable, {train, shard, score, merge, {"fsllm_inspect", "model"}}},
           {"model/config.json", kUnreadable, {train, shard, score, merge, {"fsllm_inspect", "model"}}},
           {"model/model.safetensors", kUnreadable, {train, score, merge}},
           {"model/tokenizer.json",
            kUnreadable,
            {train, shard, merge, {"fsllm_inspect", "model", "--tokenize", "rows.jsonl"}}}})
    expect_refused(closed);
}

TEST_F(Permissions, OfDataAndAdapters) {
  auto const start = kTrain + Words{"llm.adapter", "{use: True, init_from: adapter}"};
  auto const score = kScore + Words{"--adapter", "adapter", "--responses", "out.jsonl"},
             merge = kMerge + Words{"--out", "merged"};
  auto const ready = kTrain + Words{"data.shards", "shards"};
  for (auto const& closed : std::vector<Closed>{
           {"data", kUnreadable, {kTrain, kShard + Words{"--out", "out"}}},
           {"data/alpaca_data.json",
            kUnreadable,
            {kTrain,
             kTrain + Words{"--check"},
             kShard + Words{"--out", "out"},
             kShard + Words{"--preview", "1"},
             {"fsllm_eval", "--model", "model", "--tasks", "alpaca_data.json", "--data", "data", "--out",
              "results"}}},
           {"chat.jinja",
            kUnreadable,
            {kTrain + Words{"data.prompt_template", "model", "data.chat_template", "chat.jinja"}}},
           {"adapter", kUnreadable, {start, score, merge, {"fsllm_inspect", "adapter"}}},
           {"adapter/adapter_config.json", kUnreadable, {start, score, merge, {"fsllm_inspect", "adapter"}}},
           {"adapter/adapter_model.safetensors", kUnreadable, {start, score, merge}},
           {"shards", kUnreadable, {ready, ready + Words{"--check"}, {"fsllm_inspect", "shards"}}},
           {"shards/index.json", kUnreadable, {ready, {"fsllm_inspect", "shards"}}},
           {"shards/client_00002.h5", kUnreadable, {ready, {"fsllm_inspect", "shards/client_00002.h5"}}},
           {"in.jsonl", kUnreadable, {kScore + Words{"--responses", "out.jsonl"}}},
           {"rows.jsonl", kUnreadable, {{"fsllm_inspect", "model", "--tokenize", "rows.jsonl"}}}})
    expect_refused(closed);
}

TEST_F(Permissions, OfWhatIsWritten) {
  auto const tasks = Words{"fsllm_eval", "--model", "model",   "--tasks", "alpaca_data.json",
                           "--data",     "data",    "--limit", "1",       "--out"};
  for (auto const& closed : std::vector<Closed>{
           {"closed",
            kUnwritable,
            {kTrain + Words{"outdir", "closed"}, kShard + Words{"--out", "closed"},
             kShard + Words{"--out", "closed/out"}, kScore + Words{"--responses", "closed/out.jsonl"},
             tasks + Words{"closed"}, tasks + Words{"closed/results"}, kMerge + Words{"--out", "closed"},
             kMerge + Words{"--out", "closed/merged"}}},
           {"closed",
            kUnreadable,
            {kTrain + Words{"outdir", "closed"}, kShard + Words{"--out", "closed/out"},
             kScore + Words{"--responses", "closed/out.jsonl"}, kMerge + Words{"--out", "closed/merged"}}},
           {"done", kUnwritable, {kResume, kTrain + Words{"expname", "done", "--overwrite"}}},
           {"done", kUnreadable, {kResume, {"fsllm_inspect", "done"}}},
           {"done/config.yaml", kUnreadable, {kResume}},
           {"done/checkpoints", kUnwritable, {kResume}},
           {"done/checkpoints", kUnreadable, {kResume}}})
    expect_refused(closed);
}

TEST_F(Permissions, WeightsBesideAFolderOfSomebodyElse) {
  fs::create_directory("converted_weights");
  ASSERT_EQ(::chmod("converted_weights", 0555), 0);
  auto const outcome = run_unprivileged(
      dir_->path(), 2, kTrain + Words{"train.storage_dtype", "bf16", "expname", "own_weights"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_FALSE(fs::is_empty("own_weights/weights"));
  EXPECT_TRUE(fs::is_empty("converted_weights"));
}

}  // namespace
}  // namespace fsllm::test
