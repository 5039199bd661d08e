// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "child.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/folder_lock.hpp"
#include "fsllm/sweep/bayes.hpp"
#include "fsllm/sweep/sweep.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr int kStopped = 85;        ///< as fsllm_hpc ends when it has saved its state
constexpr int kStoppedEarly = 143;  ///< and when there was nothing to save
constexpr size_t kLastLines = 5;
constexpr auto kReap = 20ms;     ///< between looks at our children
constexpr auto kOthers = 1s;     ///< between looks at runs of other processes
constexpr auto kEndOfRun = 60s;  ///< for a run that outlived its sweep: it saves its state and ends

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A run whose sweep died saves its state, which takes a step; its folder is free then.
void wait_until_free(SweepRun const& run) {
  auto const start = Clock::now();
  while (!lock_holder(run.dir / ".fsllm/lock").empty() && Clock::now() - start < kEndOfRun && !interrupted())
    std::this_thread::sleep_for(kReap);
}

extern "C" void stop_as_by_term(int) {
  ::raise(SIGTERM);
}

struct Active {
  SweepRun run;
  std::unique_ptr<FolderLock> lock;
  Clock::time_point start;
  int64_t rounds = 0;
};

class Pool {
 public:
  Pool(SweepSpec const& spec, std::optional<size_t> index, RunOptions const& options)
      : sweep_(spec), index_(index), options_(options) {
    make_folder(spec.own_folder());
  }

  int work() {
    while (true) {
      reap();
      if (interrupted())
        hand_on_signal();
      else
        fill();
      if (active_.empty() && (interrupted() || !is_waiting_)) return verdict();
      std::this_thread::sleep_for(active_.empty() ? std::chrono::milliseconds(kOthers) : kReap);
    }
  }

 private:
  void reap() {
    for (auto child = active_.begin(); child != active_.end();) {
      auto const code = detail::ended(child->first);
      if (!code) {
        ++child;
        continue;
      }
      finish(child->second, *code);
      child = active_.erase(child);
      looked_ = {};
    }
  }

  /// Starts what may be started, unless we have just looked.
  void fill() {
    if (std::cmp_greater_equal(active_.size(), options_.jobs) || Clock::now() - looked_ < kOthers) return;
    while (std::cmp_less(active_.size(), options_.jobs) && start_next()) {
    }
    looked_ = Clock::now();
  }

  bool is_asked(SweepRun const& run) const { return !index_ || run.index == *index_; }

  bool start_next() {
    is_waiting_ = false;
    if (sweep_.spec.bayes) choose_settings(sweep_, index_);
    sweep_.refresh();
    for (auto const& run : sweep_.runs) {
      auto const rounds = sweep_.rounds[run.setting];
      if (!is_asked(run) || attempted_.contains({run.index, rounds})) continue;
      auto const state = sweep_.state(run);
      if (state == RunState::done) continue;
      auto lock = state == RunState::running ? nullptr : try_lock(run);
      if (lock == nullptr) {
        wait_for_others(run);
        continue;
      }
      if (is_done(run, rounds)) continue;  // by another process, since we looked
      start(run, std::move(lock));
      return true;
    }
    return false;
  }

  /// Null where another process was quicker.
  std::unique_ptr<FolderLock> try_lock(SweepRun const& run) const {
    auto const file = files_of(sweep_.spec, run).lock;
    try {
      return std::make_unique<FolderLock>(run.dir, file);
    } catch (Error const&) {
      if (!fs::exists(file)) throw;
      return nullptr;
    }
  }

  void wait_for_others(SweepRun const& run) {
    for (auto const& [pid, active] : active_)
      if (active.run.index == run.index) return;
    is_waiting_ = true;
    if (!told_.insert(run.index).second) return;
    auto const file = files_of(sweep_.spec, run).lock;
    say(run, fmt::format("with {}; waiting for it (if that is known to have ended, remove {})",
                         lock_holder(file), file.string()));
  }

  void start(SweepRun const& run, std::unique_ptr<FolderLock> lock) {
    wait_until_free(run);
    auto const command = run_command(sweep_, run, options_);
    bool const resumes = std::find(command.begin(), command.end(), "--resume") != command.end();
    say(run, resumes ? "goes on" : "begins");
    auto const rounds = sweep_.rounds[run.setting];
    attempted_.insert({run.index, rounds});
    auto const pid = detail::start_child(command, sweep_.spec.folder, files_of(sweep_.spec, run).log);
    active_.emplace(pid, Active{run, std::move(lock), Clock::now(), rounds});
  }

  void finish(Active const& child, int code) {
    auto const files = files_of(sweep_.spec, child.run);
    bool const done = code == 0 && is_done(child.run, child.rounds);
    bool const stopped = !done && (code == kStopped || code == kStoppedEarly || interrupted());
    nlohmann::ordered_json record{{"state", done      ? "done"
                                            : stopped ? "stopped"
                                                      : "failed"},
                                  {"exit_code", code},
                                  {"seconds", seconds_since(child.start)},
                                  {"ranks", options_.ranks},
                                  {"rounds", child.rounds},
                                  {"base_sha256", sweep_.spec.base_sha256}};
    auto const why = done || stopped ? "" : detail::last_words(files.log, kLastLines);
    if (!why.empty()) record["said"] = why;
    write_file_atomic(files.record,
                      record.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    if (done) return say(child.run, done_text(child));
    if (stopped) {
      was_stopped_ = true;
      return say(child.run, "stopped");
    }
    if (code == 0)
      say(child.run, "ended without a summary.json of its last round");
    else
      say(child.run, fmt::format("failed with exit code {} ({})\n{}", code, files.log.string(), why));
    if (failed_code_ == 0) failed_code_ = code > 0 && code < kStopped ? code : 1;
  }

  std::string done_text(Active const& child) const {
    auto text = fmt::format("done in {:.1f} s", seconds_since(child.start));
    auto const summary = summary_of(child.run);
    for (auto const& metric : sweep_.spec.metrics)
      if (auto const value = number_at(summary, metric.path))
        text += fmt::format(", {} {:.4f}", metric.path, *value);
    return text;
  }

  void hand_on_signal() {
    if (handed_on_) return;
    handed_on_ = true;
    for (auto const& [pid, active] : active_) ::kill(pid, SIGTERM);
  }

  int verdict() const {
    if (failed_code_ != 0) return failed_code_;
    bool const all_done = std::all_of(sweep_.runs.begin(), sweep_.runs.end(), [&](SweepRun const& run) {
      return !is_asked(run) || is_done(run, sweep_.rounds[run.setting]);
    });
    if (!all_done && (interrupted() || was_stopped_))
      return kStopped;  // the time limit of its job stops a run too
    return all_done ? 0 : 1;
  }

  void say(SweepRun const& run, std::string const& what) const {
    std::cout << fmt::format("run {} of {} ({}): {}", run.index, sweep_.runs.size(), run.name, what)
              << std::endl;
  }

  Sweep sweep_;
  std::optional<size_t> index_;
  RunOptions options_;
  std::map<pid_t, Active> active_;
  std::set<std::pair<size_t, int64_t>> attempted_;  ///< run and rounds, by this process
  std::set<size_t> told_;
  Clock::time_point looked_{};
  bool is_waiting_ = false, handed_on_ = false, was_stopped_ = false;
  int failed_code_ = 0;
};

}  // namespace

int run_sweep(SweepSpec const& spec, std::optional<size_t> index, RunOptions const& options) {
  set_signal_note("stopping the runs; they save their state", OnSignal::deferred);
  ::signal(SIGUSR1, stop_as_by_term);
  Sweep const sweep(spec);
  auto const count =
      static_cast<size_t>(spec.bayes ? spec.count : static_cast<int64_t>(sweep.settings.size())) *
      spec.seeds.size();
  FSLLM_CHECK(!index || *index < count, "run {} ({} has runs 0 to {}). Choose one of them.", *index,
              spec.file.string(), count - 1);
  if (!index) check_settings(sweep, options);
  if (interrupted()) return kStopped;
  return Pool(spec, index, options).work();
}

}  // namespace fsllm
