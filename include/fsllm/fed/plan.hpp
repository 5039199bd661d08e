// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/fed/algorithm.hpp"
#include "fsllm/fed/asynchronous.hpp"
#include "fsllm/fed/config.hpp"
#include "fsllm/fed/evaluate.hpp"
#include "fsllm/fed/sampler.hpp"

namespace fsllm {

/// The clients that only evaluate (federate.unseen_clients_rate), ascending: a pure function of the seed.
std::vector<int64_t> unseen_clients(FedConfig const& config, std::vector<int64_t> const& clients);

/// Of `clients` those that may train: what federate.client_idx_for_local_train chooses, without the unseen
/// ones. More to sample in a round than there are is an Error.
std::vector<int64_t> training_clients(FedConfig const& config, std::vector<int64_t> const& clients);

/// What plans remember from round to round, the same on every rank.
struct Schedule {
  VirtualClock clock;  ///< of asynchronous runs
  SamplerState sampler;
};
/// JSON for checkpoints.
std::string to_text(Schedule const& schedule);
Schedule parse_schedule(std::string const& text);

/// Who trains in a round, of all `clients` that may. The same value wherever it is made: it follows from
/// configuration, ids, round and `schedule`, which moves on.
RoundPlan plan_round(FedConfig const& config, std::vector<TrainingClient> const& clients, int64_t round,
                     Schedule& schedule);
/// Gives each task its share of the training rows of all (or an equal one), and counts what is stale.
void weigh(FedConfig const& config, std::vector<TrainingClient> const& clients, RoundPlan& plan);
/// What an evaluation teaches those who plan.
void note_losses(FedConfig const& config, ClientLosses const& losses, Schedule& schedule);

/// Longest job first onto the least busy rank; ties go to the lower rank. `first_rank` is 1 when rank 0 only
/// serves. `allowed`, if not empty, has for each client the ranks that it may go to (none: all); a client
/// that may go nowhere is an Error.
std::vector<std::vector<int64_t>> place_clients(std::vector<int64_t> const& clients,
                                                std::vector<double> const& costs, int ranks, int first_rank,
                                                std::vector<std::vector<int>> const& allowed = {});

}  // namespace fsllm
