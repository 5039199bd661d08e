// SPDX-License-Identifier: Apache-2.0
#include "plan_command.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "plan_search.hpp"
#include "plan_time.hpp"

namespace fsllm {
namespace {

constexpr double kGiB = 1 << 30;

/// "32GiB", "384G", "64000MB"; K, M, G, T alone are powers of 1024, as Slurm's --mem has them.
double size_in(CommandLine const& line, std::string const& option) {
  auto const text = line.text(option);
  double number = 0;
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string const unit(end, text.data() + text.size());
  static std::map<std::string, double> const units{{"M", kMiB},        {"MiB", kMiB},       {"MB", 1e6},
                                                   {"G", kGiB},        {"GiB", kGiB},       {"GB", 1e9},
                                                   {"T", 1024 * kGiB}, {"TiB", 1024 * kGiB}};
  auto const found = units.find(unit);
  FSLLM_CHECK(problem == std::errc() && found != units.end() && number > 0 && std::isfinite(number),
              "--{} {} (a size is needed: a number with M, MiB, MB, G, GiB, GB, T or TiB). Write --{} 32GiB.",
              option, text, option);
  return number * found->second;
}

int64_t count_in(CommandLine const& line, std::string const& option) {
  auto const number = line.number(option, "a number from 1");
  FSLLM_CHECK(number >= 1 && number <= 1000000, "--{} {} (a number from 1 is needed). Write --{} 4.", option,
              line.text(option), option);
  return number;
}

/// This one, unless the command line describes another.
Machine machine_of(CommandLine const& line, int64_t nodes, int64_t ranks_on_node, bool gpu) {
  Machine machine{nodes, ranks_on_node, static_cast<double>(available_memory()), 0, gpu};
  if (line.has("plan-nodes")) machine.nodes = count_in(line, "plan-nodes");
  if (line.has("plan-tasks-per-node")) machine.ranks_per_node = count_in(line, "plan-tasks-per-node");
  if (line.has("plan-node-memory")) machine.node_memory = size_in(line, "plan-node-memory");
  if (!line.has("plan-gpu-memory")) return machine;
  machine.gpu_memory = size_in(line, "plan-gpu-memory");
  machine.gpu = true;
  return machine;
}

void print_items(MemoryPlan const& plan, Place place) {
  for (auto const& item : plan.items)
    if (item.place == place) fmt::print("{:34}{:12.1f}\n", item.what, item.bytes / kMiB);
}

void print_plan(MemoryPlan const& plan, Choice const& choice, PassShape const& shape, int64_t passes) {
  fmt::print("largest pass: {:.0f} rows of {:.0f} tokens, {:.0f} of them scored\n\n{:34}{:>12}\n", shape.rows,
             shape.length, shape.targets, "MiB of a rank", "");
  print_items(plan, Place::rank);
  for (auto const& item : plan.items)
    if (item.place == Place::node)
      fmt::print("{:34}{:12.1f}  shared by a node's ranks\n", item.what, item.bytes / kMiB);
  fmt::print("{:34}{:12.1f}\n{:34}{:12.1f}\n", "resident set of a rank", plan.rank / kMiB,
             fmt::format("a node with {} ranks", choice.ranks_on_node), plan.node / kMiB);
  if (choice.gpu) {
    fmt::print("\n{}\n", "MiB of its GPU");
    print_items(plan, Place::gpu);
    fmt::print("{:34}{:12.1f}\n", "a GPU", plan.gpu / kMiB);
  }
  fmt::print("\na round sends {:.1f} MiB from and {:.1f} MiB to each rank\n", plan.up / kMiB,
             plan.down / kMiB);
  if (choice.group.ranks > 1)
    fmt::print(
        "a step of {} passes sends {:.1f} MiB from each rank to its group: {:.1f} of weights, {:.1f} of "
        "gradients\n",
        passes, (plan.gathered + plan.reduced) / kMiB, plan.gathered / kMiB, plan.reduced / kMiB);
}

std::string memory_of(Proposal const& p) {
  auto text = fmt::format("{:.1f} GiB a node", p.plan.node / kGiB);
  if (p.choice.gpu) text += fmt::format(", {:.1f} GiB a GPU", p.plan.gpu / kGiB);
  return text;
}

void print_proposals(std::vector<Proposal> const& all) {
  auto const& c = all.front().choice;
  if (all.front().use > 1 - kReserve)
    fmt::print("\nnothing was found that fits; the nearest ({}):\n", memory_of(all.front()));
  else
    fmt::print("\nproposed, {} clients at a time ({}):\n", c.ranks / c.group.ranks, memory_of(all.front()));
  fmt::print("hpc:\n  ranks_per_client: {}\n  zero_stage: {}\n", c.group.ranks, c.group.stage);
  if (c.gpu) fmt::print("  offload: {}\n", c.group.offload);
  fmt::print("train:\n  micro_batch_size: {}\n  activation_checkpointing: {}\n", c.micro_batch,
             name_of(c.checkpointing));
  for (size_t i = 1; i < all.size(); ++i)
    fmt::print("or {} ({})\n", keys_of(all[i].choice), memory_of(all[i]));
}

struct Change {
  std::string what;
  double node = 0;
};

/// Single changes that take less, from the largest saving.
std::vector<Change> changes(Setup const& s, PlanSource& source, Choice const& chosen, double node) {
  std::vector<Change> found;
  auto const try_out = [&](bool possible, std::string const& what, auto const& change) {
    if (!possible) return;
    auto other = chosen;
    change(other);
    double const now = plan_memory(source.input(other)).node;
    if (now < node) found.push_back({what, now});
  };
  try_out(chosen.checkpointing != Checkpointing::block && !s.run.train.zeroth_order(),
          "train.activation_checkpointing: block", [](Choice& c) { c.checkpointing = Checkpointing::block; });
  try_out(chosen.micro_batch != 1, "train.micro_batch_size: 1", [](Choice& c) { c.micro_batch = 1; });
  try_out(!s.run.peft.method.empty() && chosen.storage_dtype != "nf4" && chosen.group.stage < 3,
          "train.storage_dtype: nf4", [](Choice& c) { c.storage_dtype = "nf4"; });
  try_out(chosen.ranks_on_node > 1 && chosen.group.ranks == 1, "half as many ranks a node",
          [](Choice& c) { c.ranks_on_node = (c.ranks_on_node + 1) / 2; });
  std::sort(found.begin(), found.end(), [](Change const& a, Change const& b) { return a.node < b.node; });
  return found;
}

void print_fit(Setup const& s, PlanSource& source, Choice const& chosen, MemoryPlan const& plan,
               Machine const& machine, bool other_machine) {
  if (machine.node_memory == 0) return;
  bool const fits = use_of(plan, machine) <= 1;
  auto const has = fmt::format("{:.1f} MiB", machine.node_memory / kMiB);
  auto const gpu =
      machine.gpu_memory > 0 ? fmt::format(" and {:.1f} MiB a GPU", machine.gpu_memory / kMiB) : "";
  fmt::print("{} has {}{}{}: the run {}\n", other_machine ? "a node" : "this node", has,
             other_machine ? "" : " to spare", gpu, fits ? "fits" : "does not fit");
  if (!fits)
    for (auto const& [what, node] : changes(s, source, chosen, plan.node))
      fmt::print("  {}: {:.1f} MiB less{}\n", what, (plan.node - node) / kMiB,
                 node <= machine.node_memory && !machine.gpu ? ", which fits" : "");
  if (!fits || other_machine) print_proposals(proposals(s, source, machine));
}

bool describes_machine(CommandLine const& line) {
  for (auto const* option : {"plan-nodes", "plan-tasks-per-node", "plan-gpu-memory", "plan-node-memory"})
    if (line.has(option)) return true;
  return false;
}

}  // namespace

void print_memory(Setup const& s, std::vector<ClientSource> const& sources, int64_t longest, int64_t ranks,
                  int64_t ranks_on_node) {
  PlanSource source(s, sources, longest);
  Machine const machine{(ranks + ranks_on_node - 1) / ranks_on_node, ranks_on_node,
                        static_cast<double>(available_memory()), 0, s.device.gpu >= 0};
  auto const chosen = chosen_by(s, ranks, ranks_on_node, machine.gpu);
  auto const plan = plan_memory(source.input(chosen));
  auto const shape = source.largest_pass(chosen);
  fmt::print(
      "memory: at most {:.0f} MiB a rank, in a pass of {:.0f} rows of {:.0f} tokens (--plan has its parts, "
      "and the time)\n",
      plan.rank / kMiB, shape.rows, shape.length);
  if (machine.node_memory > 0 && use_of(plan, machine) > 1)
    print_fit(s, source, chosen, plan, machine, false);
}

int plan_command(CommandLine const& line, Setup& s, Communicator const& comm) {
  int64_t const ranks_on_node = comm.max(comm.split_by_node().size());
  std::vector<ClientSource> sources;
  bool measured = false;
  agree(comm, [&] {
    if (!s.run.data.shards.empty()) sources = sources_in(s.run.data.shards);
    if (comm.rank() != 0) return;
    int64_t const nodes = (comm.size() + ranks_on_node - 1) / ranks_on_node;
    auto const machine = machine_of(line, nodes, ranks_on_node, s.device.gpu >= 0);
    PlanSource source(s, sources);
    auto const chosen = chosen_by(s, machine.ranks(), machine.ranks_per_node, machine.gpu);
    auto const input = source.input(chosen);
    auto const plan = plan_memory(input);
    print_plan(plan, chosen, source.largest_pass(chosen), input.passes);
    print_fit(s, source, chosen, plan, machine, describes_machine(line));
    measured = !describes_machine(line) && source.has_weights() && use_of(plan, machine) <= 1;
  });
  if (comm.any(measured)) print_time(s, sources, comm);
  return 0;
}

}  // namespace fsllm
