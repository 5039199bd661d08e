// SPDX-License-Identifier: Apache-2.0
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "plan_command.hpp"
#include "plan_search.hpp"

namespace fsllm {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

double number_in(std::string const& file, double otherwise) {
  double number = 0;
  return std::ifstream(file) >> number ? number : otherwise;
}

/// What is left below the limit of this process's cgroup (version 2), page cache not counted.
double left_in_cgroup() {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::")) continue;
    auto const folder = "/sys/fs/cgroup" + line.substr(3) + "/";
    double const limit = number_in(folder + "memory.max", kNoLimit);
    if (limit == kNoLimit) return kNoLimit;
    double cache = 0, bytes = 0;
    std::ifstream statistics(folder + "memory.stat");
    for (std::string name; statistics >> name >> bytes;)
      if (name == "file") cache = bytes;
    return limit - number_in(folder + "memory.current", 0) + cache;
  }
  return kNoLimit;
}

/// RLIMIT_DATA and RLIMIT_AS of a rank.
double limit_of_process() {
  double least = kNoLimit;
  for (auto const kind : {RLIMIT_DATA, RLIMIT_AS}) {
    rlimit limit{};
    if (getrlimit(kind, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
      least = std::min(least, static_cast<double>(limit.rlim_cur));
  }
  return least;
}

/// Memory of a rank beside its passes; mapped weights are not in it.
double own_memory(PlanInput const& in) {
  double bytes = 0;
  for (auto const& item : plan_memory(in).items)
    if (item.place == Place::rank) bytes += item.bytes;
  return bytes;
}

}  // namespace

void check_memory(Setup const& s, std::vector<ClientSource> const& sources, bool ignore,
                  Communicator const& comm) {
  int64_t const ranks_on_node = comm.max(comm.split_by_node().size());
  agree(comm, [&] {
    if (comm.rank() != 0 || s.device.gpu >= 0 || !s.run.peft.method.empty()) return;
    auto const ranks = static_cast<double>(ranks_on_node);
    auto available = static_cast<double>(available_memory());
    if (available == 0) available = kNoLimit;
    double const a_rank = std::min(std::min(available, left_in_cgroup()) / ranks, limit_of_process());
    if (a_rank == kNoLimit) return;
    PlanSource source(s, sources);
    double const least = own_memory(source.input(chosen_by(s, comm.size(), ranks_on_node, false), false));
    if (least <= (1 - kReserve) * a_rank) return;
    Machine const machine{(comm.size() + ranks_on_node - 1) / ranks_on_node, ranks_on_node, a_rank * ranks, 0,
                          false};
    auto const best = proposals(s, source, machine).front();
    auto const advice = best.use <= 1 - kReserve
                            ? fmt::format("Start it with {}", keys_of(best.choice))
                            : "Use more ranks a client (hpc.ranks_per_client) on more nodes, an adapter "
                              "(llm.adapter.use), or a machine with more memory";
    auto const text = fmt::format(
        "the run takes {:.0f} MiB a rank beside its passes ({:.0f} MiB are available to each of {} ranks of "
        "a "
        "node). {}",
        least / kMiB, a_rank / kMiB, ranks_on_node, advice);
    FSLLM_CHECK(ignore || least <= (1 + kReserve) * a_rank, "{}; --ignore-plan starts it as it is.", text);
    log_warning("{}.", text);
  });
}

}  // namespace fsllm
