// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/sweep/runs.hpp"

namespace fsllm {

enum class RunState { pending, running, done, failed };
std::string name_of(RunState state);

/// Files of a run outside its own folder.
struct RunFiles {
  std::filesystem::path lock, log, record;
};
RunFiles files_of(SweepSpec const& spec, SweepRun const& run);

/// Where a run stands, from its files alone. Done means: summary.json is there (a run's last file), and its
/// round is `rounds` or later, or the run stopped early.
RunState state_of(SweepSpec const& spec, SweepRun const& run, int64_t rounds);
bool is_done(SweepRun const& run, int64_t rounds);

/// summary.json; null where there is none.
nlohmann::json summary_of(SweepRun const& run);
/// Events of metrics.jsonl in order: before training (round 0) and of the rounds. A line that is not whole
/// (the run is writing it) is left out.
std::vector<nlohmann::json> events_of(SweepRun const& run);
/// Those of the rounds.
std::vector<nlohmann::json> round_events(SweepRun const& run);
/// The value at a dotted path, where it is a finite number.
std::optional<double> number_at(nlohmann::json const& json, std::string const& path);
/// The metric after so many rounds, or where the run ended earlier by itself; nothing before.
std::optional<double> metric_after(SweepRun const& run, std::string const& path, int64_t rounds);

/// What a run took: over its rounds, those before a resume included.
struct RunCost {
  int64_t rounds = 0, bytes = 0;  ///< bytes handed to MPI, both ways
  double seconds = 0;
};
RunCost cost_of(SweepRun const& run);

}  // namespace fsllm
