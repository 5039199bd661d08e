// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/pair_loss.hpp"

#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// What a log-probability of an answer of so many tokens is multiplied by.
double weight_of(PairLoss const& loss, int64_t targets) {
  return loss.kind == LossKind::reward ? loss.beta / static_cast<double>(targets) : loss.beta;
}

}  // namespace

at::Tensor summed_pair_loss(CausalLM& model, Batch const& batch, PairLoss const& loss,
                            std::optional<DropoutKey> const& dropout, double upstream) {
  auto const rows = batch.num_rows();
  FSLLM_ASSERT(rows == static_cast<int64_t>(batch.reference.size()) && rows % 2 == 0);
  std::vector<double> weights;
  for (int64_t const targets : targets_by_row(batch)) weights.push_back(weight_of(loss, targets));
  auto const losses = row_losses(model, batch, dropout, upstream * loss.beta);
  auto const constant = [&](std::vector<double> const& values) {
    return at::tensor(values, at::kDouble).to(losses.device());
  };
  auto const rewards = constant(batch.reference).sub(losses).mul(constant(weights)).view({rows / 2, 2});
  return at::log_sigmoid(rewards.select(1, 0).sub(rewards.select(1, 1))).sum().neg();
}

SplitLoss evaluate_pairs(CausalLM& model, TokenSplit const& split, std::span<double const> reference,
                         PairLoss const& loss, BatchConfig const& config) {
  FSLLM_ASSERT(split.pairs && std::ssize(reference) == split.rows());
  auto const losses = row_losses(model, split, config);
  auto const targets = targets_by_row(split);
  auto const reward = [&](size_t row) {
    return (reference[row] - losses[row]) * weight_of(loss, targets[row]);
  };
  SplitLoss total;
  total.of_pairs = true;
  for (size_t chosen = 0; chosen < losses.size(); chosen += 2) {
    double const margin = reward(chosen) - reward(chosen + 1);
    total.sum += std::log1p(std::exp(-std::abs(margin))) + std::max(-margin, 0.0);
    total.margin += margin;
    total.wins += margin > 0 ? 1 : 0;
    total.targets += targets[chosen] + targets[chosen + 1];
  }
  total.pairs = total.rows = split.samples();
  return total;
}

}  // namespace fsllm
