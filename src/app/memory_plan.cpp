// SPDX-License-Identifier: Apache-2.0
#include "memory_plan.hpp"

#include <algorithm>

#include "fsllm/comm/collective.hpp"

namespace fsllm {
namespace {

using Items = std::vector<MemoryItem>;

constexpr double kNumber = 4, kInteger = 8;

double sum_at(Items const& items, Place place) {
  double bytes = 0;
  for (auto const& item : items)
    if (item.place == place) bytes += item.bytes;
  return bytes;
}

bool has_parts(PlanInput const& in) {
  return in.full_model && in.group_ranks > 1 && in.zero_stage > 0;
}

/// What of the trained state a rank has.
double share(PlanInput const& in) {
  return has_parts(in) ? 1 / static_cast<double>(in.group_ranks) : 1;
}

/// Of what the other ranks of a group have, in units of the whole.
double others(PlanInput const& in) {
  return 1 - 1 / static_cast<double>(in.group_ranks);
}

Place computing(PlanInput const& in) {
  return in.gpu ? Place::gpu : Place::rank;
}

Place training(PlanInput const& in) {
  return in.gpu && !in.offload ? Place::gpu : Place::rank;
}

double sums_of(PlanInput const& in) {
  return (in.exact ? kInteger : kNumber) * in.messages * share(in);
}

/// Sums in fp32 take their memory when the only client has ended.
bool sums_late(PlanInput const& in) {
  return in.one_client && !in.exact;
}

/// Weights of a trained model: whole where they compute, and a part of the fp32 values (PartitionedModel).
Items trained_weights(PlanInput const& in) {
  if (!has_parts(in)) return {{"trainable parameters", in.each.weights * in.parameters, computing(in)}};
  double const whole = in.zero_stage < 3 ? in.parameters : in.outside;
  bool const same = in.compute >= kNumber && !(in.gpu && in.offload);  // a part is a view of the whole
  return {{"weights, whole", in.compute * whole, computing(in)},
          {"fp32 values, a part", kNumber * (in.parameters - (same ? whole : 0)) * share(in), training(in)}};
}

/// What a rank has from the first step to the last.
Items lasting(PlanInput const& in) {
  Items items{
      {"program and libraries", in.process},
      {"driver and libraries", in.context, Place::gpu},
      {"base weights, mapped", in.full_model ? 0 : in.mapped, Place::node},
      {"base weights", in.gpu && !in.full_model ? in.mapped - in.frozen * others(in) : 0, Place::gpu},
      {"converted panels", in.buffers, computing(in)},
      {"rows behind frozen blocks", in.frozen_rows},
      {"frozen blocks, a part", in.gpu ? 0 : in.frozen * (1 - others(in))},
      {"global state", kNumber * in.server_numbers * share(in)},
      {"what the client starts from", in.gpu && !in.offload ? kNumber * in.parameters * share(in) : 0,
       training(in)},
      {"sums of messages", sums_late(in) ? 0 : sums_of(in)},
      {"gradients of the part", has_parts(in) ? kNumber * in.parameters * share(in) : 0, training(in)},
      {"state of a client", in.client_state * share(in)},
      {"overlays", in.overlays, Place::node}};
  auto const weights = trained_weights(in);
  items.insert(items.end(), weights.begin(), weights.end());
  return items;
}

/// Gradients of whole tensors before they are parts: of two blocks, with what other ranks sent of them.
double under_way(PlanInput const& in, double blocks) {
  return has_parts(in) && in.zero_stage >= 2 ? blocks * in.compute * in.block * (1 + others(in)) : 0;
}

/// A pass when the backward begins. Full gradients grow while activations go, so that both are never there
/// as a whole, unless an earlier pass of the step left them.
Items middle_of_pass(PlanInput const& in) {
  bool const parts = has_parts(in),
             kept = !in.full_model || (in.passes > 1 && !(parts && in.zero_stage >= 2));
  double const each = parts ? in.compute : in.each.gradients;
  auto const at = computing(in);
  double const blocks = in.zero_stage == 3 ? (in.full_model ? in.compute * in.block : in.frozen_block) : 0;
  return {{"optimiser state", in.each.optimizer * in.parameters * share(in), training(in)},
          {"gradients", each * (kept ? in.parameters : in.head), at},
          {"blocks, gathered", in.group_ranks > 1 ? 2 * blocks : 0, at},
          {"gradients under way", under_way(in, 2), at},
          {"activations of the largest pass", in.activations, at},
          {"a block computed again", in.one_block, at},
          {"short-lived tensors", in.working, at},
          {"logits", in.loss, at}};
}

/// Stage 0: a bucket of gradients, what is received of it, and the part that is summed here.
double summed_at_once(PlanInput const& in) {
  if (in.group_ranks == 1) return 0;
  return 2 * kNumber * std::min(in.parameters, static_cast<double>(kSumBucketElements));
}

/// The end of the backward pass.
Items end_of_pass(PlanInput const& in) {
  bool const parts = has_parts(in), few = parts && in.zero_stage >= 2;
  auto const at = computing(in);
  return {{"optimiser state", in.each.optimizer * in.parameters * share(in), training(in)},
          {"gradients", (parts ? in.compute : in.each.gradients) * (few ? in.outside : in.parameters), at},
          {"gradients under way",
           few     ? under_way(in, 1) + in.compute * in.outside * others(in)
           : parts ? 2 * in.compute * in.block * others(in)
                   : summed_at_once(in),
           at},
          {"blocks, gathered", in.zero_stage == 3 && few ? 2 * in.compute * in.block : 0, at}};
}

/// A client has ended: its optimiser has gone.
Items end_of_client(PlanInput const& in) {
  return {{"a client's update", kNumber * in.messages * share(in), training(in)},
          {"sums of messages", sums_late(in) ? sums_of(in) : 0, Place::rank}};
}

Items const& largest(std::vector<Items> const& moments, Place place) {
  return *std::max_element(moments.begin(), moments.end(), [&](Items const& a, Items const& b) {
    return sum_at(a, place) < sum_at(b, place);
  });
}

/// Bytes that a rank sends to its group in a step.
void add_group_traffic(MemoryPlan& plan, PlanInput const& in) {
  if (in.group_ranks == 1) return;
  double const passes = static_cast<double>(in.passes);
  if (!in.full_model) {
    plan.reduced = 2 * kNumber * in.parameters * others(in);
    plan.gathered = 2 * passes * in.frozen * others(in);
    return;
  }
  if (in.zero_stage == 0) {
    plan.reduced = 2 * kNumber * in.parameters * others(in);
    return;
  }
  double const blocks = in.parameters - in.outside;
  plan.reduced = (in.zero_stage >= 2 ? passes : 1) * in.compute * in.parameters * others(in);
  plan.gathered = in.compute * others(in) *
                  (in.zero_stage == 3 ? in.outside + passes * (2 * blocks - in.block) : in.parameters);
}

}  // namespace

StateBytes over_group(StateBytes const& each, int64_t ranks, int stage) {
  auto const part = [&](double bytes, int from_stage) {
    return stage >= from_stage ? bytes / static_cast<double>(ranks) : bytes;
  };
  return {part(each.weights, 3), part(each.gradients, 2), part(each.optimizer, 1)};
}

MemoryPlan plan_memory(PlanInput const& in) {
  MemoryPlan plan;
  auto items = lasting(in);
  std::vector<Items> const moments{middle_of_pass(in), end_of_pass(in), end_of_client(in)};
  for (auto const place : {Place::rank, Place::node, Place::gpu})
    for (auto const& item : largest(moments, place))
      if (item.place == place) items.push_back(item);
  double const own = sum_at(items, Place::rank), shared = sum_at(items, Place::node);
  // A full model is copied out of the mapped file before anything else is there.
  double const copied = in.gpu ? 0 : sum_at(trained_weights(in), Place::rank);
  double const loading = in.full_model ? in.process + copied : 0;
  plan.rank = std::max(own + shared, in.full_model ? loading + in.mapped : 0);
  auto const ranks = static_cast<double>(in.ranks_on_node);
  plan.node = std::max(ranks * own + shared, in.full_model ? ranks * loading + in.mapped : 0);
  plan.gpu = sum_at(items, Place::gpu);
  std::erase_if(items, [](MemoryItem const& item) { return item.bytes < 1; });
  plan.items = std::move(items);
  plan.up = sums_of(in);
  plan.down = kNumber * in.server_numbers * share(in);
  add_group_traffic(plan, in);
  return plan;
}

}  // namespace fsllm
