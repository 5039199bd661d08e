// SPDX-License-Identifier: Apache-2.0
#include "memory_plan.hpp"

#include <algorithm>

namespace fsllm {
namespace {

/// Of the moments in a turn: steps, and what comes after the last one.
std::vector<MemoryItem> larger(std::vector<MemoryItem> const& a, std::vector<MemoryItem> const& b) {
  auto const sum = [](std::vector<MemoryItem> const& items) {
    double bytes = 0;
    for (auto const& item : items) bytes += item.bytes;
    return bytes;
  };
  return sum(a) < sum(b) ? b : a;
}

}  // namespace

StateBytes over_group(StateBytes const& each, int64_t ranks, int stage) {
  auto const share = [&](double bytes, int from_stage) {
    return stage >= from_stage ? bytes / static_cast<double>(ranks) : bytes;
  };
  return {share(each.weights, 3), share(each.gradients, 2), share(each.optimizer, 1)};
}

MemoryPlan plan_memory(PlanInput const& in) {
  auto const each = over_group(in.each, in.group_ranks, in.zero_stage);
  constexpr double kNumber = 4, kInteger = 8;
  double const sums = (in.exact ? kInteger : kNumber) * in.messages;
  bool const late = in.one_client && !in.exact;
  std::vector<MemoryItem> items{
      {"program and libraries", in.process},
      {"base weights, mapped", in.full_model ? 0 : in.mapped, true},
      {"converted panels", in.buffers},
      {"trainable parameters", each.weights * in.parameters},
      {"optimiser state", each.optimizer * in.parameters},
      {"global state", kNumber * in.server_numbers},
      {"sums of messages", late ? 0 : sums},
      {"state of a client", in.client_state},
      {"overlays", in.overlays, true},
  };
  auto const moment =
      larger({{"gradients", each.gradients * in.parameters},
              {"activations of the largest pass", in.activations},
              {"a block computed again", in.one_block},
              {"short-lived tensors", in.working},
              {"logits", in.loss}},
             {{"a client's update", kNumber * in.messages}, {"sums of messages", late ? sums : 0}});
  items.insert(items.end(), moment.begin(), moment.end());
  MemoryPlan plan;
  double own = 0, shared = 0;
  for (auto const& item : items) (item.of_node ? shared : own) += item.bytes;
  // A full model is copied out of the mapped file before anything else is there.
  double const loading = in.full_model ? in.process + in.mapped + each.weights * in.parameters : 0;
  plan.rank = std::max(own + shared, loading);
  plan.node = static_cast<double>(in.ranks_on_node) * own + shared;
  std::erase_if(items, [](MemoryItem const& item) { return item.bytes < 1; });
  plan.items = std::move(items);
  plan.up = sums;
  plan.down = kNumber * in.server_numbers;
  return plan;
}

}  // namespace fsllm
