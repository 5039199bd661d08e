// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "fsllm/data/prepare.hpp"
#include "fsllm/fed/client_data.hpp"
#include "setup.hpp"

namespace fsllm {

/// Collective: --check. Validates data, model and adapter without weights in memory or training, and prints
/// what the run will be: parameters that learn, rows and tokens of the clients, what is cut, which rank
/// trains whom, and memory. `ready`: the shards, where they are made.
int check_command(Setup const& s, std::vector<ClientSource> ready, Communicator const& comm);

/// PrepareJob of a run's own shards.
PrepareJob prepare_job(Setup const& s, int threads);

}  // namespace fsllm
