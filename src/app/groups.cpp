// SPDX-License-Identifier: Apache-2.0
#include "groups.hpp"

#include "fsllm/comm/nccl.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

std::unique_ptr<Collective> make_collective(Setup const& s, Communicator const& comm) {
  return s.device.nccl ? make_nccl_collective(comm, s.device.gpu) : make_host_collective(comm);
}

}  // namespace

Groups::Groups(Setup const& s, Communicator const& world) : across_ranks(world) {
  auto const size = static_cast<int>(s.run.group.ranks);
  if (size > 1) {
    across_ranks = world.split(world.rank() % size, world.rank());
    group = make_collective(s, world.split(world.rank() / size, world.rank()));
  }
  across = make_collective(s, across_ranks);
}

void check_group_size(Setup const& s, Communicator const& comm) {
  int64_t const ranks = s.run.group.ranks;
  FSLLM_CHECK(comm.size() % ranks == 0,
              "hpc.ranks_per_client = {} ({} ranks were started, which make no whole groups of {}). Start {} "
              "ranks, or "
              "another multiple of it.",
              ranks, comm.size(), ranks, (comm.size() / ranks + 1) * ranks);
}

}  // namespace fsllm
