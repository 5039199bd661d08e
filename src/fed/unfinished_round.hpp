// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "fsllm/fed/client_states.hpp"
#include "fsllm/fed/report.hpp"
#include "fsllm/io/output_folder.hpp"
#include "fsllm/train/local_training.hpp"

namespace fsllm::detail {

/// A turn between two steps.
struct RestingTurn {
  int64_t client = 0, version = 0;
  TensorMap parameters;
  TrainingState training;
};

/// What one rank has of a round that a signal, or the time limit, stopped.
struct UnfinishedWork {
  std::vector<ClientReport> reports;  ///< of the turns that have ended
  TensorMap sums;                     ///< Aggregation::state(), of the same
  std::vector<RestingTurn> resting;
};

/// What the ranks of an earlier start have left of the round that comes next. The same on every rank, but for
/// `work`.
struct UnfinishedRound {
  int ranks = 0;                                ///< that had it
  std::set<std::pair<int64_t, int64_t>> ended;  ///< client and version of the turns that need not be trained
  std::vector<ClientStateFile> states;          ///< of their clients
  std::vector<UnfinishedWork> work;             ///< of ranks before, that this rank goes on with
  /// Turns that any rank goes on with: each rank has all of them, as their clients may be placed anywhere.
  std::map<std::pair<int64_t, int64_t>, RestingTurn> resting;  ///< by client and version
};

/// Collective over `comm`, whose ranks each have `work` of round `round` (from 0):
/// "unfinished/rank_00000.safetensors" and so on below the run directory, and then "unfinished/round.json",
/// which makes them count. `output` is rank 0's; `states`, of all clients, are the same on every rank.
void save_unfinished(OutputFolder* output, std::filesystem::path const& run_directory, int64_t round,
                     UnfinishedWork const& work, std::vector<ClientStateFile> const& states,
                     Communicator const& comm);

/// Collective: what lies there of round `round`, if that is the one, and whole; damaged files are told of.
std::optional<UnfinishedRound> load_unfinished(std::filesystem::path const& run_directory, int64_t round,
                                               Communicator const& comm);

bool holds_unfinished(std::filesystem::path const& run_directory);

/// Rank 0: removes what save_unfinished wrote.
void remove_unfinished(OutputFolder& output);

}  // namespace fsllm::detail
