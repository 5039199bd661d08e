// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "plan_input.hpp"

namespace fsllm {

/// What a run is planned for. Bytes; 0: unknown.
struct Machine {
  int64_t nodes = 1, ranks_per_node = 1;
  double node_memory = 0, gpu_memory = 0;
  bool gpu = false;  ///< one for each rank
  int64_t ranks() const { return nodes * ranks_per_node; }
};

/// Planned over available memory, the larger of host's and GPU's; a plan up to 1 fits.
double use_of(MemoryPlan const& plan, Machine const& machine);

struct Proposal {
  Choice choice;
  MemoryPlan plan;
  double use = 0;  ///< use_of()
};

/// A plan may be wrong by this much of the memory (RESULTS), which a proposal leaves free.
constexpr double kReserve = 0.1;

/// The best choice for each number of ranks a client, best first: those that leave kReserve free, or if none
/// does the one that is nearest to it. Better is, in this order: no offload (the optimiser would step on the
/// CPU), a group within one node, less computed again, fewer ranks a client, a lower stage, more rows a pass.
std::vector<Proposal> proposals(Setup const& s, PlanSource& source, Machine const& machine);

/// As in train.activation_checkpointing.
std::string name_of(Checkpointing way);
/// Keys and values of a choice, as the command line takes them.
std::string keys_of(Choice const& choice);

}  // namespace fsllm
