// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/sweep/run_state.hpp"

namespace fsllm {

/// A sweep as it stands on disk: what there is to run, and how many rounds each run is to have.
struct Sweep {
  SweepSpec spec;
  std::vector<Setting> settings;
  std::vector<SweepRun> runs;
  std::vector<int64_t> rounds;  ///< of each setting

  explicit Sweep(SweepSpec spec_);
  /// Looks again at settings (bayes) and rounds (halving), which follow from results.
  void refresh();
  RunState state(SweepRun const& run) const { return state_of(spec, run, rounds[run.setting]); }
  /// The mean over the seeds, NaN where one of them failed; nothing while one is missing.
  std::optional<double> score(size_t setting, std::string const& metric, int64_t rounds_done) const;
};

/// How runs are started.
struct RunOptions {
  int64_t jobs = 1;                   ///< runs at a time
  int64_t ranks = 1;                  ///< of a run; 1 starts it without `launcher`
  std::vector<std::string> launcher;  ///< words before the number of ranks
  std::filesystem::path program;      ///< fsllm_hpc
};

/// Runs one run, or all that are not done, and says on standard output how it goes. A run that another
/// process of the sweep has is waited for, and taken over if that process dies; half a run is resumed.
/// SIGINT, SIGTERM and SIGUSR1 let the runs save their state and end. 0: all asked for are done; 85: stopped
/// by a signal; else the exit code of a run that failed (1 where a signal killed it).
int run_sweep(SweepSpec const& spec, std::optional<size_t> index, RunOptions const& options);

/// Checks the keys of settings that are to run with fsllm_hpc --check: each value once, not each combination.
/// What it refuses is an Error that names the setting.
void check_settings(Sweep const& sweep, RunOptions const& options);

/// The command of a run.
std::vector<std::string> run_command(Sweep const& sweep, SweepRun const& run, RunOptions const& options);

}  // namespace fsllm
