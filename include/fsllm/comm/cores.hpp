// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"

struct hwloc_topology;

namespace fsllm {

/// Collective: cores of this rank alone. Where the launcher has not bound the ranks of a node (several have
/// the same cores, as many as ranks or more), every one is bound to its part of them: whole cores, of as few
/// NUMA domains as possible. `near`, if given, limits a rank to these of its cores (a GPU's, as
/// "0-15,32-47"). Returns how many cores this rank has, at least 1; hardware threads of one core count once.
int take_cores(Communicator const& world, std::string const& near = "");

/// What take_cores() returned; before it, the cores that this process may run on.
int cores_of_rank();

/// "0-3,8": the hardware threads that this process may run on.
std::string core_list();

/// One list of hardware threads a rank, of the machine that `topology` (of hwloc) describes.
std::vector<std::string> distribute_cores(hwloc_topology* topology, size_t ranks);

}  // namespace fsllm
