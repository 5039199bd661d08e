// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "setup.hpp"

namespace fsllm {

/// Collective: --plan. Prints what memory the run takes by kind, what travels in a round, whether there is
/// that memory, and what would fit; on this machine, or on one that --plan-... describe. Nothing is kept
/// of the few steps that predict seconds.
int plan_command(CommandLine const& line, Setup& s, Communicator const& comm);

/// One line for --check: memory of a rank, and whether it is there; what would take less, where it is not.
/// `longest`: tokens of the longest row that no shard has yet; 0 where not all are known.
void print_memory(Setup const& s, std::vector<ClientSource> const& sources, int64_t longest, int64_t ranks,
                  int64_t ranks_on_node);

/// Collective: whether this node's memory will do for a full model, before it is loaded. A run whose weights,
/// gradients, optimiser and messages alone exceed by a tenth what is available, or the limits of its cgroup
/// and processes, is an Error that says what would fit (`ignore`: a warning, as it is where they nearly do).
/// Passes and mapped weights do not count, so that no run is refused that would fit; nor do runs on GPUs.
void check_memory(Setup const& s, std::vector<ClientSource> const& sources, bool ignore,
                  Communicator const& comm);

}  // namespace fsllm
