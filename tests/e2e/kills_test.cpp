// SPDX-License-Identifier: Apache-2.0
// Kills at random moments (one rank, all, the launcher), continued at another number of ranks: the same
// bytes, every round once, nothing left behind. FSLLM_KILLS=N sets how many hit a process at work
// (tests/stress.sh kills N).
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "damage.hpp"

namespace fsllm::test {
namespace {

using Clock = std::chrono::steady_clock;

int kills() {
  char const* const count = std::getenv("FSLLM_KILLS");
  return count == nullptr ? 3 : std::atoi(count);
}

/// Every file; of those that hold times, and of the list of files, the name alone.
std::map<std::string, std::string> contents(fs::path const& dir) {
  std::map<std::string, std::string> found;
  for (auto const& entry : fs::recursive_directory_iterator(dir)) {
    auto const name = entry.path().lexically_relative(dir).string();
    bool const timed = name.ends_with(".log") || name.ends_with("summary.json") ||
                       name.ends_with("metrics.jsonl") || name.ends_with("metrics_clients.jsonl") ||
                       name.ends_with("metrics_ranks.jsonl") || name.ends_with("report.html") ||
                       name.find("tfevents") != std::string::npos || name.ends_with("manifest.json") ||
                       name.ends_with("state.h5") || name.ends_with("files.json");
    if (!entry.is_regular_file()) continue;
    auto text = timed ? std::string() : read_text(entry.path());
    if (name.ends_with("run.json")) {  // when and how it was started stands there too
      auto record = nlohmann::json::parse(text);
      record.erase("starts");
      text = record.dump();
    }
    // Adapters name their base model by its path.
    if (name.ends_with(".json"))
      for (size_t at; (at = text.find(dir.parent_path().string())) != std::string::npos;)
        text.replace(at, dir.parent_path().string().size(), "DIR");
    found[name] = text;
  }
  return found;
}

/// What is killed and done again, and the folder that must not differ in the end.
struct Work {
  std::string folder;
  std::vector<std::string> words;
  std::vector<std::string> again;  ///< once the folder holds `started`
  std::string started;
};

class Kills : public testing::Test {
 protected:
  Kills() { prepare(whole_.path()); }

  Outcome go_on(fs::path const& dir, int np, Work const& work) {
    Outcome outcome;
    // Ranks whose launcher was killed hold the folder until they notice, and may still begin the run there.
    for (int attempt = 0; attempt < 200; ++attempt) {
      auto words = work.words;
      bool const again = !work.started.empty() && fs::exists(dir / work.started);
      if (again) words.insert(words.end(), work.again.begin(), work.again.end());
      outcome = run(dir, np, words);
      bool const begun = !work.started.empty() && !again && fs::exists(dir / work.started);
      if (outcome.err.find("is in use by") == std::string::npos && (outcome.exit_code == 0 || !begun)) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return outcome;
  }

  /// `make(dir)` says what to do in a folder.
  template <class Make>
  void survive(Make const& make, bool with_ranks) {
    auto const started = Clock::now();
    auto const first = make(whole_.path());
    auto const outcome = run(whole_.path(), with_ranks ? 2 : 0, first.words);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    auto const length = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - started).count();
    auto const expected = contents(whole_ / first.folder);
    std::string const record = fs::exists(whole_ / first.folder / "metrics.jsonl")
                                   ? training_record(whole_ / first.folder / "metrics.jsonl")
                                   : "";
    int hits = 0, i = 0;
    for (; hits < kills() && i < 4 * kills(); ++i) {
      std::mt19937 random(static_cast<unsigned>(1000 + i));
      TempDir dir;
      prepare(dir.path());
      auto const work = make(dir.path());
      int const np = with_ranks ? 1 + static_cast<int>(random() % 3) : 0;
      {
        Background job(dir.path(), np, work.words);
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % static_cast<unsigned>(length)));
        hits += job.running() ? 1 : 0;
        if (!job.running()) continue;
        switch (random() % 3) {
          case 0:
            job.kill_hard();
            break;
          case 1:
            job.kill_launcher();
            break;
          default:
            job.kill_rank(random());
        }
      }
      int const np_after = with_ranks ? static_cast<int>(random() % 4) : 0;
      auto const ended = go_on(dir.path(), np_after, work);
      // What was killed behind its last file is whole; the program says so and opens nothing.
      bool const whole = ended.err.find("already holds") != std::string::npos;
      ASSERT_EQ(ended.exit_code, whole ? 2 : 0) << "kill " << i << ": " << ended.err;
      auto actual = contents(dir / work.folder);
      if (whole) actual.erase(".fsllm/lock");
      for (auto const& [name, text] : expected) {
        EXPECT_TRUE(actual.contains(name)) << "kill " << i << ": " << name << " is missing";
        bool const same = name == "config.yaml" || actual[name] == text;
        EXPECT_TRUE(same) << "kill " << i << ": " << name << " differs";
        actual.erase(name);
      }
      for (auto const& [name, text] : actual) ADD_FAILURE() << "kill " << i << " left " << name << " behind";
      if (record.empty()) continue;
      EXPECT_EQ(training_record(dir / work.folder / "metrics.jsonl"), record) << "kill " << i;
    }
    std::cout << hits << " of " << i << " processes were killed at work\n";
    EXPECT_EQ(hits, kills());
  }
  TempDir whole_;
};

/// 30 rounds of three clients.
Work training(fs::path const& dir, std::vector<std::string> const& more) {
  auto text = yaml(dir);
  text.replace(text.find("total_round_num: 1"), 18, "total_round_num: 30");
  text.replace(text.find("local_update_steps: 1"), 21, "local_update_steps: 6");
  Work work{"run", {"fsllm_hpc", "--cfg", write_config(dir, text).string()}, {"--resume"}, "run/config.yaml"};
  work.words.insert(work.words.end(), more.begin(), more.end());
  return work;
}

TEST_F(Kills, Training) {
  survive([](fs::path const& dir) { return training(dir, {}); }, true);
}

TEST_F(Kills, TrainingWithStatesOfClients) {
  survive(
      [](fs::path const& dir) {
        return training(
            dir, {"federate.method", "scaffold", "federate.sample_client_num", "2", "federate.keep_optimizer",
                  "True", "train.optimizer", "{type: AdamW, lr: 0.01}"});
      },
      true);
}

TEST_F(Kills, TrainingOfModelsOfClients) {
  survive(
      [](fs::path const& dir) {
        return training(
            dir, {"federate.method", "pfedme", "personalization.K", "2", "federate.sample_client_num", "2",
                  "train.optimizer", "{type: AdamW, lr: 0.01}"});
      },
      true);
}

TEST_F(Kills, TrainingWithAMeanOfRounds) {
  survive(
      [](fs::path const& dir) {
        return training(dir, {"fedswa.use", "True", "fedswa.start_rnd", "2", "fedswa.freq", "3",
                              "finetune.before_eval", "True"});
      },
      true);
}

/// Also the one rank of mpirun -np 1.
TEST_F(Kills, RanksNoticeThatTheirLauncherIsGone) {
  for (int const np : {1, 2}) {
    TempDir dir;
    prepare(dir.path());
    auto text = yaml(dir.path());
    text.replace(text.find("total_round_num: 1"), 18, "total_round_num: 100000");
    auto const config = write_config(dir.path(), text).string();
    {
      Background job(dir.path(), np, {"fsllm_hpc", "--cfg", config});
      while (job.running() && !fs::exists(dir / "run/checkpoints/round_000002"))
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      ASSERT_TRUE(job.running());
      job.kill_launcher();
    }
    Work const work{
        "run", {"fsllm_hpc", "--cfg", config, "federate.total_round_num=2"}, {"--resume"}, "run/config.yaml"};
    auto const outcome = go_on(dir.path(), 0, work);
    EXPECT_EQ(outcome.exit_code, 0) << np << " ranks: " << outcome.err;
  }
}

TEST_F(Kills, Sharding) {
  survive(
      [](fs::path const& dir) {
        auto const config = write_config(dir, yaml(dir)).string();
        return Work{"out", {"fsllm_shard", "--cfg", config, "--out", (dir / "out").string()}, {}, ""};
      },
      true);
}

TEST_F(Kills, Export) {
  survive(
      [](fs::path const& dir) {
        return Work{"out",
                    {"fsllm_export", "--model", (dir / "model").string(), "--adapter",
                     (dir / "adapter").string(), "--to", "merged", "--out", (dir / "out").string()},
                    {},
                    ""};
      },
      false);
}

}  // namespace
}  // namespace fsllm::test
