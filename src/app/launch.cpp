// SPDX-License-Identifier: Apache-2.0
#include "launch.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <utility>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

using Ranks = std::vector<RankFacts>;

std::string variable(RankFacts const& facts, std::string const& name) {
  auto const found = facts.environment.find(name);
  return found == facts.environment.end() ? "" : found->second;
}

int64_t number(RankFacts const& facts, std::string const& name) {
  return std::atoll(variable(facts, name).c_str());
}

bool by_open_mpi(RankFacts const& facts) {
  return facts.mpi.starts_with("Open MPI");
}

/// mpirun sets this for its ranks; srun's do not have it.
bool by_mpirun(RankFacts const& facts) {
  return facts.environment.contains("OMPI_COMM_WORLD_SIZE");
}

template <class Condition>
std::vector<int> ranks_where(Ranks const& ranks, Condition const& condition) {
  std::vector<int> chosen;
  for (size_t rank = 0; rank < ranks.size(); ++rank)
    if (condition(ranks[rank])) chosen.push_back(static_cast<int>(rank));
  return chosen;
}

/// Ranks by the lowest rank of their node.
std::map<int, std::vector<int>> by_node(Ranks const& ranks) {
  std::map<int, std::vector<int>> nodes;
  for (size_t rank = 0; rank < ranks.size(); ++rank)
    nodes[ranks[rank].node].push_back(static_cast<int>(rank));
  return nodes;
}

void judge_programs(Ranks const& ranks, LaunchFaults& faults) {
  auto const other = ranks_where(ranks, [&](auto const& r) { return r.program != ranks[0].program; });
  if (!other.empty())
    faults.errors.push_back(
        fmt::format("the ranks run different builds of this program ({} another one than rank 0). Start the "
                    "same program on all nodes.",
                    ranks_text(ranks, other)));
  auto const processors =
      ranks_where(ranks, [&](auto const& r) { return r.processor != ranks[0].processor; });
  if (!processors.empty())
    faults.warnings.push_back(
        fmt::format("different processors: {} has {}, {} {}. The result has other bits where clients move to "
                    "other ranks; "
                    "for the same bits start on one kind of node (sbatch --constraint).",
                    ranks[0].host, ranks[0].processor, ranks_text(ranks, processors),
                    ranks[static_cast<size_t>(processors[0])].processor));
}

/// mpirun starts one daemon a node, and Slurm takes each for a task.
void judge_gpus(Ranks const& ranks, LaunchFaults& faults) {
  auto const [fewest, most] = std::ranges::minmax(ranks, {}, &RankFacts::gpus);
  bool const by_task = !variable(ranks[0], "SLURM_GPUS_PER_TASK").empty() ||
                       variable(ranks[0], "SLURM_TRES_PER_TASK").find("gpu") != std::string::npos;
  if (by_task && by_mpirun(ranks[0]) && fewest.gpus != most.gpus)
    faults.errors.push_back(fmt::format(
        "ranks see between {} and {} GPUs (--gpus-per-task under mpirun, whose daemon on each other node is "
        "one task). Ask Slurm for --gpus-per-node, or start with srun --mpi=pmix.",
        fewest.gpus, most.gpus));
  if (auto const given = number(ranks[0], "SLURM_GPUS_ON_NODE"); given > 0 && !ranks[0].cuda)
    faults.warnings.push_back(fmt::format(
        "{} GPUs a node are idle (this build has no CUDA). Build the preset cuda, or ask for nodes "
        "without GPUs.",
        given));
}

void judge_allocation(Ranks const& ranks, LaunchFaults& faults) {
  auto const& first = ranks[0];
  auto const size = static_cast<int64_t>(ranks.size());
  auto const tasks = number(first, "SLURM_NTASKS");
  auto const slots = tasks > 0 ? tasks : first.slots;
  if (slots > size)
    faults.warnings.push_back(fmt::format(
        "{} of {} tasks are idle ({} has {}, this run {} rank{}). Start it with srun --mpi=pmix or mpirun{}.",
        slots - size, slots, tasks > 0 ? "SLURM_NTASKS" : "PBS_NODEFILE", slots, size, size == 1 ? "" : "s",
        size == 1 ? "" : " on all of them, or ask for fewer"));
  auto const step_nodes = number(first, "SLURM_STEP_NUM_NODES");
  auto const nodes = step_nodes > 0 ? step_nodes : number(first, "SLURM_JOB_NUM_NODES");
  auto const used = static_cast<int64_t>(by_node(ranks).size());
  if (nodes > used && slots <= size)
    faults.warnings.push_back(
        fmt::format("{} of {} nodes of this job are idle. Start a rank on each (mpirun --map-by node, srun "
                    "--ntasks-per-node), or ask for fewer.",
                    nodes - used, nodes));
  auto const asked = number(first, "SLURM_CPUS_PER_TASK");
  if (!by_mpirun(first) && !variable(first, "SLURM_STEP_ID").empty() && asked > first.threads)
    faults.warnings.push_back(fmt::format(
        "{} of {} processors a task are idle (srun since Slurm 22.05 does not take --cpus-per-task "
        "from sbatch). Write srun --cpus-per-task=$SLURM_CPUS_PER_TASK.",
        asked - first.threads, asked));
}

/// Ranks that were bound to the same few hardware threads, although the node has more.
void judge_binding(Ranks const& ranks, std::vector<int> const& node, LaunchFaults& faults) {
  std::map<std::string, std::vector<int>> by_cores;
  for (auto const rank : node) by_cores[ranks[static_cast<size_t>(rank)].cores].push_back(rank);
  for (auto const& [cores, sharing] : by_cores) {
    auto const& facts = ranks[static_cast<size_t>(sharing[0])];
    if (std::cmp_greater(sharing.size(), facts.threads) && facts.threads < facts.machine_threads) {
      faults.warnings.push_back(fmt::format(
          "{} share processor{} {} (the node has {}). Let the launcher give each its own: mpirun --bind-to "
          "core, "
          "srun --cpu-bind=cores, --cpus-per-task.",
          ranks_text(ranks, sharing), facts.threads == 1 ? "" : "s", cores, facts.machine_threads));
      return;
    }
  }
}

/// Open MPI's ranks spin while they wait, unless it knows that they share cores.
void judge_waiting(Ranks const& ranks, std::vector<int> const& node, LaunchFaults& faults) {
  auto const& facts = ranks[static_cast<size_t>(node[0])];
  bool const yields = number(facts, "OMPI_MCA_mpi_yield_when_idle") > 0 ||
                      number(facts, "OMPI_MCA_mpi_oversubscribe") > 0 ||
                      variable(facts, "OMPI_MCA_mpi_yield_when_idle") == "true";
  if (by_open_mpi(facts) && !yields && std::cmp_greater(node.size(), facts.machine_threads))
    faults.warnings.push_back(
        fmt::format("{} ranks on the {} processors of {} wait for messages at each other's cost. Set "
                    "OMPI_MCA_mpi_yield_when_idle=1, or start fewer.",
                    node.size(), facts.machine_threads, facts.host));
}

/// Open MPI 4 copies large messages of a node out of the sender's memory, and finds out too late where the
/// system forbids it: containers, hardened kernels.
void judge_copies(Ranks const& ranks, std::vector<int> const& node, LaunchFaults& faults) {
  auto const& facts = ranks[static_cast<size_t>(node[0])];
  auto const mechanism = variable(facts, "OMPI_MCA_btl_vader_single_copy_mechanism");
  auto const btl = variable(facts, "OMPI_MCA_btl");
  bool const used = btl.empty() || (btl.find("vader") != std::string::npos) != btl.starts_with('^');
  bool const blind =
      std::ranges::any_of(node, [&](int r) { return !ranks[static_cast<size_t>(r)].reads_others; });
  if (node.size() > 1 && blind && used && facts.mpi.starts_with("Open MPI v4") &&
      (mechanism.empty() || mechanism == "cma"))
    faults.warnings.push_back(fmt::format(
        "the ranks on {} cannot read each other's memory (a container, or a hardened kernel), where "
        "Open MPI may fail with 'Read -1, expected ...'. Set "
        "OMPI_MCA_btl_vader_single_copy_mechanism=none.",
        facts.host));
}

/// Open MPI names its files in shared memory by host and local rank.
void judge_names(Ranks const& ranks, LaunchFaults& faults) {
  std::map<std::string, std::set<int>> nodes;
  for (auto const& facts : ranks) nodes[facts.host].insert(facts.node);
  for (auto const& [host, own] : nodes)
    if (own.size() > 1) {
      faults.warnings.push_back(fmt::format(
          "{} nodes have the host name {}, by which Open MPI tells them apart. Give each its own, or "
          "set OMPI_MCA_btl=self,tcp.",
          own.size(), host));
      return;
    }
}

}  // namespace

std::string ranks_text(Ranks const& ranks, std::vector<int> const& chosen) {
  std::set<std::string> hosts;
  for (auto const rank : chosen) hosts.insert(ranks[static_cast<size_t>(rank)].host);
  return fmt::format("rank{} {} ({})", chosen.size() == 1 ? "" : "s", fmt::join(chosen, ", "),
                     fmt::join(hosts, ", "));
}

LaunchFaults judge_launch(Ranks const& ranks) {
  LaunchFaults faults;
  judge_programs(ranks, faults);
  judge_gpus(ranks, faults);
  judge_allocation(ranks, faults);
  judge_names(ranks, faults);
  for (auto const& [lowest, node] : by_node(ranks)) {
    auto const before = faults.warnings.size();
    judge_binding(ranks, node, faults);
    judge_waiting(ranks, node, faults);
    judge_copies(ranks, node, faults);
    if (faults.warnings.size() > before) break;  // the other nodes have the same launcher
  }
  return faults;
}

}  // namespace fsllm
