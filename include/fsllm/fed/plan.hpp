// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "fsllm/fed/config.hpp"

namespace fsllm {

/// The clients that only evaluate (federate.unseen_clients_rate), ascending: a pure function of the seed.
std::vector<int64_t> unseen_clients(FedConfig const& config, std::vector<int64_t> const& clients);

/// Of `clients` those that may train: what federate.client_idx_for_local_train chooses, without the unseen
/// ones. More to sample in a round than there are is an Error.
std::vector<int64_t> training_clients(FedConfig const& config, std::vector<int64_t> const& clients);

/// Clients of a round: uniform without replacement, a pure function of (seed, round).
std::vector<int64_t> sample_clients(FedConfig const& config, std::vector<int64_t> const& clients,
                                    int64_t round);

/// Longest job first onto the least busy rank; ties go to the lower rank. `first_rank` is 1 when rank 0 only
/// serves. `allowed`, if not empty, has for each client the ranks that it may go to (none: all); a client
/// that may go nowhere is an Error.
std::vector<std::vector<int64_t>> place_clients(std::vector<int64_t> const& clients,
                                                std::vector<double> const& costs, int ranks, int first_rank,
                                                std::vector<std::vector<int>> const& allowed = {});

}  // namespace fsllm
