// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/cores.hpp"

#include <gtest/gtest.h>
#include <hwloc.h>
#include <sched.h>

#include <algorithm>

namespace fsllm {
namespace {

using Lists = std::vector<std::string>;

/// Of a machine in hwloc's words, as "numa:2 core:4 pu:2".
Lists of_machine(char const* machine, size_t ranks) {
  hwloc_topology_t topology = nullptr;
  hwloc_topology_init(&topology);
  EXPECT_EQ(hwloc_topology_set_synthetic(topology, machine), 0);
  EXPECT_EQ(hwloc_topology_load(topology), 0);
  auto lists = distribute_cores(topology, ranks);
  hwloc_topology_destroy(topology);
  return lists;
}

TEST(Cores, RanksOfANodeStayInTheirNumaDomain) {
  EXPECT_EQ(of_machine("pack:2 numa:1 core:4 pu:1", 2), (Lists{"0-3", "4-7"}));
  EXPECT_EQ(of_machine("pack:2 numa:1 core:4 pu:1", 4), (Lists{"0-1", "2-3", "4-5", "6-7"}));
  // Three cores for two ranks: which of them has two is hwloc's choice.
  auto const uneven = of_machine("pack:2 numa:1 core:3 pu:1", 4);
  EXPECT_TRUE((uneven[0] == "0" && uneven[1] == "1-2") || (uneven[0] == "0-1" && uneven[1] == "2"));
  EXPECT_TRUE((uneven[2] == "3" && uneven[3] == "4-5") || (uneven[2] == "3-4" && uneven[3] == "5"));
}

TEST(Cores, HardwareThreadsOfACoreStayTogether) {
  EXPECT_EQ(of_machine("numa:1 core:4(indexes=0,2,4,6) pu:2(indexes=0,4,1,5,2,6,3,7)", 2),
            (Lists{"0-1,4-5", "2-3,6-7"}));
}

int cores_usable() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  return CPU_COUNT(&set);
}

/// The launcher of tests binds no rank and may start more than there are cores.
TEST(Cores, RanksThatShareCoresAreGivenPartsOfThem) {
  auto const world = Communicator::world();
  int const before = cores_usable();
  int const mine = take_cores(world);
  EXPECT_EQ(cores_of_rank(), mine);
  EXPECT_GE(mine, 1);
  bool const enough = before >= world.size();
  EXPECT_EQ(cores_usable() < before, enough && world.size() > 1);
  if (enough) {
    EXPECT_LE(world.sum(int64_t{mine}), before);
  }
  EXPECT_EQ(take_cores(world), mine) << "bound ranks stay where they are";
}

TEST(Cores, CoresFarFromADeviceAreLeft) {
  auto const world = Communicator::world();
  if (world.size() > 1) GTEST_SKIP() << "one rank";
  int first = 0;
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  while (!CPU_ISSET(first, &set)) ++first;
  EXPECT_EQ(take_cores(world, std::to_string(first)), 1);
  EXPECT_EQ(cores_usable(), 1);
  EXPECT_EQ(take_cores(world, "9000"), 1) << "none of them is usable: all stay";
  sched_setaffinity(0, sizeof set, &set);
}

}  // namespace
}  // namespace fsllm
