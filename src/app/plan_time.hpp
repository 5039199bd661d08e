// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "setup.hpp"

namespace fsllm {

/// Collective: seconds of a round and of the run on these ranks, from a few steps and an evaluated batch that
/// every rank (group) does now, on its own client's rows, and the tokens that ready shards hold. Where that
/// cannot be, one line says why. The weights are read for it, and what is trained is lost.
void print_time(Setup& s, std::vector<ClientSource> const& sources, Communicator const& comm);

}  // namespace fsllm
