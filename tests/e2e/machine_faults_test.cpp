// SPDX-License-Identifier: Apache-2.0
// What the machine refuses: one message of ours, exit code 2, files as they were.
#include <fmt/core.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <set>
#include <thread>

#include "damage.hpp"

namespace fsllm::test {
namespace {

class MachineFaults : public testing::Test {
 protected:
  MachineFaults() {
    prepare(dir_.path());
    config_ = write_config(dir_.path(), yaml(dir_.path())).string();
    write(dir_ / "in.jsonl", "{\"id\":1,\"type\":\"loglikelihood_rolling\",\"ids\":[1,2,3,4]}\n");
  }
  std::vector<std::string> train(std::vector<std::string> const& more = {}) const {
    std::vector<std::string> words{"fsllm_hpc", "--cfg", config_};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  std::vector<std::string> shard() const {
    return {"fsllm_shard", "--cfg", config_, "--out", (dir_ / "out").string()};
  }
  std::vector<std::string> merge() const {
    return {"fsllm_export",
            "--model",
            (dir_ / "model").string(),
            "--adapter",
            (dir_ / "adapter").string(),
            "--to",
            "merged",
            "--out",
            (dir_ / "merged").string()};
  }
  std::vector<std::string> score() const {
    return {"fsllm_eval",
            "--model",
            (dir_ / "model").string(),
            "--requests",
            (dir_ / "in.jsonl").string(),
            "--responses",
            (dir_ / "out.jsonl").string()};
  }
  /// Exit code 124 where the time was up.
  Outcome run_at_most(std::chrono::seconds time, std::vector<std::string> words) const {
    fs::path const programs = std::getenv("FSLLM_BIN_DIR");
    words[0] = (programs / words[0]).string();
    words.insert(words.begin(),
                 {fs::relative("/usr/bin/timeout", programs).string(), std::to_string(time.count())});
    return run(dir_.path(), 0, words);
  }
  std::string client_config() const {
    write(dir_ / "clients.yaml", "client_1: {train: {optimizer: {lr: 0.01}}}\n");
    return (dir_ / "clients.yaml").string();
  }
  TempDir dir_;
  std::string config_;
};

TEST_F(MachineFaults, FilesAboveALimitAreErrors) {
  for (auto const& words : {train(), shard(), merge()}) {  // mpiexec itself does not survive such a limit
    auto const outcome = run_limited(dir_.path(), 0, words, RLIMIT_FSIZE, 6000);
    EXPECT_EQ(outcome.exit_code, 2) << words[0] << " " << outcome.err << outcome.out;
    EXPECT_THAT(outcome.err, testing::HasSubstr("error: ")) << words[0];
    EXPECT_THAT(outcome.err, testing::Not(testing::HasSubstr("internal"))) << words[0];
  }
  EXPECT_FALSE(fs::exists(dir_ / "merged/config.json"));
  EXPECT_FALSE(fs::exists(dir_ / "out/index.json"));
}

/// A disk of `kilobytes` at dir/disk while the object lives.
class SmallDisk {
 public:
  SmallDisk(fs::path const& dir, int kilobytes) : path_(dir / "disk") {
    fs::create_directory(path_);
    mounted_ = ::geteuid() == 0 && ::mount("tmpfs", path_.c_str(), "tmpfs", 0, size(kilobytes).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(SmallDisk const&) = delete;
  SmallDisk& operator=(SmallDisk const&) = delete;
  bool mounted() const { return mounted_; }
  void enlarge() const {
    ASSERT_EQ(::mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT, size(65536).c_str()), 0);
  }

 private:
  static std::string size(int kilobytes) { return fmt::format("size={}k", kilobytes); }
  fs::path path_;
  bool mounted_ = false;
};

/// Whatever file is the one that no longer fits: an error that says so, and the same work ends once there is
/// space.
TEST_F(MachineFaults, FullDisksAreErrorsAndTheWorkCanBeEnded) {
  auto const disk = (dir_ / "disk").string();
  auto const responses = [&] {
    std::string many;
    for (int i = 0; i < 300; ++i)
      many += fmt::format("{{\"id\":{},\"type\":\"loglikelihood_rolling\",\"ids\":[1,2,3,4]}}\n", i);
    write(dir_ / "in.jsonl", many);
    auto words = score();
    words.back() = disk + "/out.jsonl";
    return words;
  };
  auto const merged = [&] {
    auto words = merge();
    words.back() = disk + "/merged";
    return words;
  };
  std::vector<std::vector<std::string>> const work{train({"outdir", disk}),
                                                   {"fsllm_shard", "--cfg", config_, "--out", disk + "/out"},
                                                   merged(),
                                                   responses()};
  for (auto const& words : work) {
    int refused = 0;
    for (int const kilobytes : {4, 8, 16, 28, 40, 56, 80, 112, 160, 240}) {
      SmallDisk const small(dir_.path(), kilobytes);
      if (!small.mounted()) GTEST_SKIP() << "a small disk needs root and mount";
      auto const outcome = run(dir_.path(), 0, words);
      if (outcome.exit_code == 0) break;
      ++refused;
      EXPECT_EQ(outcome.exit_code, 2) << words[0] << " " << kilobytes << " " << outcome.err;
      EXPECT_THAT(outcome.out + outcome.err, testing::ContainsRegex("[Ss]pace"))
          << words[0] << " " << kilobytes;
      EXPECT_THAT(outcome.err, testing::Not(testing::HasSubstr("internal"))) << words[0] << " " << kilobytes;
      small.enlarge();
      auto again = words;
      if (fs::exists(disk + "/run/config.yaml")) again.push_back("--resume");
      auto const ended = run(dir_.path(), 0, again);
      EXPECT_EQ(ended.exit_code, 0) << words[0] << " " << kilobytes << " " << ended.err;
    }
    EXPECT_GE(refused, 1) << words[0];
  }
}

TEST_F(MachineFaults, TooLittleSharedMemoryIsNamed) {
  auto const bash = fs::relative("/bin/bash", std::getenv("FSLLM_BIN_DIR")).string();
  auto const in_small_memory = [&](std::string const& command) {
    return run(dir_.path(), 0,
               {bash, "-c",
                "exec unshare -m bash -c 'mount -t tmpfs -o size=256k tmpfs /dev/shm && " + command + "'"});
  };
  if (::geteuid() != 0 || in_small_memory("true").exit_code != 0) GTEST_SKIP() << "needs root and unshare";
  auto const program = (fs::path(std::getenv("FSLLM_BIN_DIR")) / "fsllm_hpc").string();
  expect_message(in_small_memory(fmt::format("exec \"{}\" -np 2 \"{}\" --cfg \"{}\"",
                                             std::getenv("FSLLM_MPIEXEC"), program, config_)),
                 "no shared memory for the sums of a node's ranks");
}

TEST_F(MachineFaults, TooFewDescriptorsAreAnError) {
  // The soft limit is raised to the hard one.
  EXPECT_EQ(run_limited(dir_.path(), 0, score(), RLIMIT_NOFILE, 9).exit_code, 0);
  for (auto words : {train(), shard(), merge(), score()}) {
    std::string command = "ulimit -n 30; exec \"$0\" \"$@\"";
    std::vector<std::string> shell{fs::relative("/bin/bash", std::getenv("FSLLM_BIN_DIR")).string(), "-c",
                                   command};
    words[0] = (fs::path(std::getenv("FSLLM_BIN_DIR")) / words[0]).string();
    shell.insert(shell.end(), words.begin(), words.end());
    expect_message(run(dir_.path(), 0, shell), "too few file descriptors (ulimit -n is 30, 64 are needed)");
  }
}

TEST_F(MachineFaults, PipesInThePlaceOfFilesAreRefused) {
  auto const pipe = (dir_ / "pipe").string();
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (auto const& words : {std::vector<std::string>{"fsllm_hpc", "--cfg", pipe},
                            train({"--client_cfg", pipe}),
                            train({"model.type", pipe}),
                            train({"llm.adapter.init_from", pipe}),
                            train({"data.chat_template", pipe, "data.prompt_template", "model"}),
                            {"fsllm_eval", "--model", (dir_ / "model").string(), "--requests", pipe,
                             "--responses", (dir_ / "r").string()},
                            {"fsllm_inspect", pipe},
                            {"fsllm_export", "--model", pipe, "--adapter", (dir_ / "adapter").string(),
                             "--to", "merged", "--out", (dir_ / "m").string()}})
    EXPECT_EQ(run(dir_.path(), 0, words).exit_code, 2) << words[0] << " " << words[2];
}

/// A pipe in the place of any file that a run reads: no program waits for its other end.
TEST_F(MachineFaults, PipesInThePlaceOfAnyFileAreRefused) {
  auto const shards = (dir_ / "shards").string();
  ASSERT_EQ(run(dir_.path(), 0, {"fsllm_shard", "--cfg", config_, "--out", shards}).exit_code, 0);
  ASSERT_EQ(run(dir_.path(), 0, train({"--client_cfg", client_config()})).exit_code, 0);
  std::map<std::string, std::vector<std::string>> const readers{
      {"model", {"expname", "other"}},
      {"data", {"expname", "other"}},
      {"adapter", {"expname", "other", "llm.adapter.init_from", (dir_ / "adapter").string()}},
      {"shards", {"expname", "other", "data.shards", shards}},
      {"run", {"--resume", "federate.total_round_num", "2"}}};
  // Of other data sets; made again; read by other programs and by people.
  auto const unread = [](std::string const& name) {
    static std::set<std::string> const names{"run/summary.json",      "run/run.json",
                                             "run/shards/report.svg", "run/report.html",
                                             "run/shards/report.txt", "run/shards/server.h5",
                                             "shards/report.svg",     "shards/report.txt",
                                             "shards/server.h5",      "shards/.fsllm/files.json"};
    return names.contains(name) || name.starts_with("run/best/") || name.starts_with("run/adapter/") ||
           (name.starts_with("data/") && name != "data/alpaca_data.json");
  };
  for (auto const& [folder, words] : readers) {
    auto const whole = dir_ / "whole";
    fs::copy(dir_ / folder, whole, fs::copy_options::recursive);
    for (auto const& entry : fs::recursive_directory_iterator(whole)) {
      auto const name = folder + "/" + entry.path().lexically_relative(whole).string();
      if (!entry.is_regular_file() || unread(name)) continue;
      fs::remove(dir_ / name);
      ASSERT_EQ(::mkfifo((dir_ / name).c_str(), 0600), 0);
      auto const outcome = run_at_most(std::chrono::seconds(60), train(words));
      EXPECT_EQ(outcome.exit_code, 2) << name << " " << outcome.err;
      EXPECT_THAT(outcome.out + outcome.err, testing::HasSubstr(entry.path().filename().string())) << name;
      EXPECT_THAT(outcome.err, testing::Not(testing::HasSubstr("internal"))) << name;
      fs::remove_all(dir_ / folder);
      fs::copy(whole, dir_ / folder, fs::copy_options::recursive);
      fs::remove_all(dir_ / "other");
    }
    fs::remove_all(whole);
  }
}

TEST_F(MachineFaults, SignalsNameTheCheckpointAndLeaveNoRank) {
  for (int np : {0, 2}) {
    TempDir dir;
    prepare(dir.path());
    auto const config = write_config(dir.path(), yaml(dir.path())).string();
    std::vector<std::string> const words{"fsllm_hpc", "--cfg",
                                         config,      "federate.total_round_num",
                                         "100000",    "early_stop.patience",
                                         "0",         "checkpoint.every_rounds",
                                         "5"};
    Background job(dir.path(), np, words);
    ASSERT_TRUE(comes([&] { return fs::exists(dir / "run/checkpoints/round_000005/manifest.json"); }));
    job.signal(SIGTERM);
    EXPECT_TRUE(comes([&] { return !job.running(); })) << np;
    // mpirun of Open MPI 5 ends before its ranks do, and no longer prints what they say then; the run's log
    // has it.
    EXPECT_TRUE(comes([&] {
      auto const said = read_text(dir / "stderr.txt") + read_text(dir / "run/exp_print.log");
      return said.find("continue with --resume") != std::string::npos;
    })) << np;
    auto const again = run(dir.path(), np == 0 ? 2 : 0,
                           {"fsllm_hpc", "--cfg", config, "--resume", "federate.total_round_num", "6",
                            "early_stop.patience", "0", "checkpoint.every_rounds", "5"});
    EXPECT_EQ(again.exit_code, 0) << again.err;
  }
}

}  // namespace
}  // namespace fsllm::test
