// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/cores.hpp"

#include <hwloc.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

struct FreeBitmap {
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Bitmap = std::unique_ptr<hwloc_bitmap_s, FreeBitmap>;

struct DestroyTopology {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Topology = std::unique_ptr<hwloc_topology, DestroyTopology>;

Bitmap bitmap_of(std::string const& list) {
  Bitmap bitmap(hwloc_bitmap_alloc());
  hwloc_bitmap_list_sscanf(bitmap.get(), list.c_str());
  return bitmap;
}

std::string list_of(hwloc_const_bitmap_t bitmap) {
  char* text = nullptr;
  if (hwloc_bitmap_list_asprintf(&text, bitmap) < 0) throw std::bad_alloc();
  std::unique_ptr<char, decltype(&std::free)> const owner(text, &std::free);
  return text;
}

/// Null: the machine does not say.
Topology topology_here() {
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) return nullptr;
  Topology owner(topology);
  return hwloc_topology_load(topology) == 0 ? std::move(owner) : nullptr;
}

int cores_in(hwloc_topology_t topology, hwloc_const_bitmap_t threads) {
  int const cores = hwloc_get_nbobjs_inside_cpuset_by_type(topology, threads, HWLOC_OBJ_CORE);
  return std::max({1, cores, cores > 0 ? 0 : hwloc_bitmap_weight(threads)});
}

/// Hardware threads that this process may run on, of `near` if any of these are.
Bitmap threads_here(hwloc_topology_t topology, std::string const& near) {
  Bitmap threads(hwloc_bitmap_alloc());
  if (hwloc_get_cpubind(topology, threads.get(), HWLOC_CPUBIND_PROCESS) != 0)
    hwloc_bitmap_copy(threads.get(), hwloc_topology_get_allowed_cpuset(topology));
  if (auto const wanted = bitmap_of(near); hwloc_bitmap_intersects(threads.get(), wanted.get()))
    hwloc_bitmap_and(threads.get(), threads.get(), wanted.get());
  return threads;
}

int cores_taken = 0;

}  // namespace

std::vector<std::string> distribute_cores(hwloc_topology* topology, size_t ranks) {
  std::vector<hwloc_bitmap_t> sets(ranks);
  auto root = hwloc_get_root_obj(topology);
  int const core = hwloc_get_type_or_below_depth(topology, HWLOC_OBJ_CORE);
  if (hwloc_distrib(topology, &root, 1, sets.data(), static_cast<unsigned>(ranks), core, 0) != 0)
    fail_internal(__FILE__, __LINE__, "hwloc does not distribute ranks over its own machine");
  std::vector<std::string> lists;
  for (auto const set : sets) lists.push_back(list_of(Bitmap(set).get()));
  return lists;
}

int take_cores(Communicator const& world, std::string const& near) {
  auto const node = world.split_by_node();
  auto const topology = topology_here();
  auto const mine = topology ? threads_here(topology.get(), near) : nullptr;
  auto const lists = node.all_gather(mine ? list_of(mine.get()) : "");
  if (!mine) return cores_taken = 1;
  auto const& own = lists[static_cast<size_t>(node.rank())];
  auto const ranks = std::count(lists.begin(), lists.end(), own);
  auto const before = std::count(lists.begin(), lists.begin() + node.rank(), own);
  int const cores = cores_in(topology.get(), mine.get());
  if (ranks > cores) return cores_taken = 1;
  auto part = bitmap_of(own);
  if (ranks > 1 && hwloc_topology_restrict(topology.get(), mine.get(), 0) == 0)
    part =
        bitmap_of(distribute_cores(topology.get(), static_cast<size_t>(ranks))[static_cast<size_t>(before)]);
  if (ranks > 1 || !near.empty()) hwloc_set_cpubind(topology.get(), part.get(), HWLOC_CPUBIND_PROCESS);
  return cores_taken = cores_in(topology.get(), part.get());
}

std::string core_list() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return "?";
  std::string text;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &set)) continue;
    int last = core;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", core);
    if (last > core) text += fmt::format("-{}", last);
    core = last;
  }
  return text;
}

int cores_of_rank() {
  if (cores_taken > 0) return cores_taken;
  auto const topology = topology_here();
  return topology ? cores_in(topology.get(), threads_here(topology.get(), "").get()) : 1;
}

}  // namespace fsllm
