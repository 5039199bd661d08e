// SPDX-License-Identifier: Apache-2.0
#include "plan_search.hpp"

#include <algorithm>
#include <set>
#include <tuple>

namespace fsllm {
namespace {

/// Stages that run_config.cpp (check_group) takes with this run.
std::vector<int64_t> stages_of(Setup const& s) {
  bool const adapter = !s.run.peft.method.empty();
  std::vector<int64_t> stages{0};
  if (!adapter && !s.run.fed.algorithm.whole_updates) stages.insert(stages.end(), {1, 2});
  bool const quantized = adapter && quantization_of(s.load.storage_dtype) != Quantization::none;
  if (!quantized && (adapter || stages.size() > 1)) stages.push_back(3);
  return stages;
}

bool takes_groups(Setup const& s) {
  auto const& algorithm = s.run.fed.algorithm;
  return !s.run.train.zeroth_order() && !s.run.train.redraws && s.run.fed.clients_per_pass == 1 &&
         algorithm.components == 1 && !algorithm.trains_cores && !s.run.fed.asyn.use &&
         s.run.shard_roots.empty();
}

/// Sizes of groups that leave no rank without a row, and no group without a client.
std::vector<int64_t> group_sizes(Setup const& s, PlanSource const& source, Machine const& machine) {
  std::vector<int64_t> sizes;
  int64_t const ranks = machine.ranks(), clients = source.clients_a_round();
  for (int64_t size = 1; size <= ranks; ++size) {
    bool const used = ranks / size <= clients && size <= s.run.train.batch.batch_size;
    if (ranks % size == 0 && used && (size == 1 || takes_groups(s))) sizes.push_back(size);
  }
  if (sizes.empty()) sizes.push_back(1);
  return sizes;
}

std::vector<Choice> choices_for(Setup const& s, Choice const& base, Machine const& machine, int64_t size) {
  std::vector<GroupConfig> groups;
  for (int64_t const stage : size == 1 ? std::vector<int64_t>{0} : stages_of(s)) {
    groups.push_back({size, stage, "none"});
    bool const parts = stage > 0 && s.run.peft.method.empty();
    if (machine.gpu && parts) groups.push_back({size, stage, "optimizer"});
  }
  std::vector<Checkpointing> ways{s.run.checkpointing};
  if (!s.run.train.zeroth_order())
    for (auto const way : {Checkpointing::selective, Checkpointing::block})
      if (way != s.run.checkpointing && s.run.checkpointing != Checkpointing::block) ways.push_back(way);
  std::vector<int64_t> batches{base.micro_batch};
  if (base.micro_batch != 1) batches.push_back(1);
  std::vector<Choice> choices;
  for (auto const& group : groups)
    for (auto const way : ways)
      for (int64_t const batch : batches) {
        auto choice = base;
        choice.group = group;
        choice.checkpointing = way;
        choice.micro_batch = batch;
        choices.push_back(choice);
      }
  return choices;
}

auto cost(Choice const& c) {
  int const again = c.checkpointing == Checkpointing::none    ? 0
                    : c.checkpointing == Checkpointing::block ? 2
                                                              : 1;
  return std::tuple(c.group.offload != "none", c.group.ranks > c.ranks_on_node, again, c.group.ranks,
                    c.group.stage, c.micro_batch == 1);
}

}  // namespace

double use_of(MemoryPlan const& plan, Machine const& machine) {
  double use = machine.node_memory > 0 ? plan.node / machine.node_memory : 0;
  if (machine.gpu && machine.gpu_memory > 0) use = std::max(use, plan.gpu / machine.gpu_memory);
  return use;
}

std::vector<Proposal> proposals(Setup const& s, PlanSource& source, Machine const& machine) {
  auto const base = chosen_by(s, machine.ranks(), machine.ranks_per_node, machine.gpu);
  std::vector<Proposal> best;
  std::optional<Proposal> nearest;
  for (int64_t const size : group_sizes(s, source, machine)) {
    std::optional<Proposal> found;
    for (auto const& choice : choices_for(s, base, machine, size)) {
      auto const plan = plan_memory(source.input(choice));
      Proposal const here{choice, plan, use_of(plan, machine)};
      if (!nearest || here.use < nearest->use) nearest = here;
      if (here.use <= 1 - kReserve && (!found || cost(choice) < cost(found->choice))) found = here;
    }
    if (found) best.push_back(*found);
  }
  std::stable_sort(best.begin(), best.end(),
                   [](Proposal const& a, Proposal const& b) { return cost(a.choice) < cost(b.choice); });
  if (best.empty() && nearest) best.push_back(*nearest);
  return best;
}

std::string name_of(Checkpointing way) {
  return way == Checkpointing::none ? "none" : way == Checkpointing::block ? "block" : "selective";
}

/// The keys in one line.
std::string keys_of(Choice const& c) {
  auto text = fmt::format("hpc.ranks_per_client {} hpc.zero_stage {}", c.group.ranks, c.group.stage);
  if (c.gpu) text += " hpc.offload " + c.group.offload;
  return text + fmt::format(" train.micro_batch_size {} train.activation_checkpointing {}", c.micro_batch,
                            name_of(c.checkpointing));
}

}  // namespace fsllm
