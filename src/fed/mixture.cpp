// SPDX-License-Identifier: Apache-2.0
// A client's turn, and how it is judged, where the global model is a mixture of several.
#include "fsllm/fed/mixture.hpp"

#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <numeric>

#include "fsllm/comm/stall.hpp"
#include "fsllm/fed/evaluate.hpp"
#include "rank_work.hpp"

namespace fsllm::detail {

/// Losses [rows, components], fp64 on the host.
at::Tensor RankWork::component_losses(ServerState const& server, int64_t client, TokenSplit const& split) {
  auto const& config = f_.train_config(client).batch;
  std::vector<at::Tensor> columns;
  for (int64_t m = 0; m < algorithm_.components; ++m) {
    copy_values(f_.parameters, component_of(server, m));
    columns.push_back(at::tensor(row_losses(f_.model, split, config), at::kDouble));
  }
  return at::stack(columns, 1);
}

/// Of FedEM's algorithm 1 what one client does: q and π from the components as they came, then steps on each
/// of them with q as the rows' weights.
ClientReport RankWork::train_mixture(RoundPlan const& plan, ClientTask const& task, ServerState const& server,
                                     Aggregation& aggregation, Progress& progress) {
  auto const kept = state_of(task.client, server).own;
  set_activity(fmt::format("weighing the components for client {}", task.client));
  auto const q = responsibilities(component_losses(server, task.client, f_.data.shard(task.client)->train),
                                  kept.at(kMixture));
  ClientReport report{task.client, {}, 0, task.version};
  Message message;
  for (int64_t m = 0; m < algorithm_.components; ++m) {
    auto const start = moved(component_of(server, m), device());
    TensorMap none;
    ClientTurn turn{
        plan, task, server, start, f_.parameters, none, {}, {}, f_.train_config(task.client).optimizer.lr};
    auto const weights = q.select(1, m).contiguous();
    auto const* values = weights.const_data_ptr<double>();
    copy_values(f_.parameters, start);
    take_part(turn, hook_of(turn, algorithm_.gradients), algorithm_.parts.front(), {}, progress,
              {values, values + weights.numel()});
    auto result = turn.result;
    if (m > 0) result.targets = result.samples = 0;  // the same rows, whose losses are parts of one
    report.result += result;
    report.update_norm = std::hypot(report.update_norm, l2_norm(turn.update));
    for (auto& [name, tensor] : message_of(algorithm_, turn).mean)
      message.mean.emplace(component_name(m, name), tensor);
  }
  aggregation.add(message, task);
  states_.put(task.client, plan.round + 1, {{{kMixture, q.mean(0)}}, {}});
  return report;
}

/// Each row by the client's own mixture.
SplitLoss RankWork::mixture_loss(ServerState const& server, int64_t client, TokenSplit const& split) {
  if (split.rows() == 0) return {};
  auto const losses = component_losses(server, client, split);
  auto const sum = mixture_losses(losses, state_of(client, server).own.at(kMixture)).sum();
  SplitLoss loss;
  loss.sum = sum.item<double>();
  auto const targets = targets_by_row(split);
  loss.targets = std::accumulate(targets.begin(), targets.end(), int64_t{0});
  loss.rows = split.rows();
  return loss;
}

}  // namespace fsllm::detail
