// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/loss.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/split_with_sizes.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "fsllm/train/rank_group.hpp"
#include "head_loss.hpp"
#include "shared_prefix.hpp"

namespace fsllm {
namespace {

at::Tensor index_tensor(std::vector<int64_t> const& values, CausalLM const& model) {
  return at::tensor(values, at::kLong).to(at::Device(model.device()));
}

ScoredTokens tokens_behind(CausalLM const& model, Batch const& batch, SharedPrefix const& shared) {
  RaggedInput const input{at::tensor(shared.ids, at::kLong), shared.offsets};
  auto const pass = model.pass(input, {.shared_prefix = true});
  auto const positions = index_tensor(shared.target_positions, model);
  return {model.hidden_states(input.ids, pass).index_select(0, positions),
          index_tensor(batch.target_ids, model), pass.at(positions)};
}

/// What is seen of a batch where successors are scored.
ScoredTokens scored_tokens(CausalLM const& model, Batch const& batch,
                           std::optional<DropoutKey> const& dropout) {
  if (batch.packing == Packing::shared_prefix)
    if (auto const shared = share_prefix(batch, model.config())) return tokens_behind(model, batch, *shared);
  PassOptions options{.packing = batch.packing};
  if (dropout) options.segments = {{batch.num_rows(), *dropout, batch.first_row}};
  RaggedInput const input{at::tensor(batch.ids, at::kLong), batch.offsets};
  auto const pass = model.pass(input, options);
  auto const positions = index_tensor(batch.target_positions, model);
  return {model.hidden_states(input.ids, pass).index_select(0, positions),
          index_tensor(batch.target_ids, model), pass.at(positions)};
}

}  // namespace

at::Tensor summed_loss(CausalLM& model, Batch const& batch, std::optional<DropoutKey> const& dropout,
                       double upstream) {
  return summed_head_loss(model, scored_tokens(model, batch, dropout), upstream);
}

at::Tensor shared_loss(CausalLM& model, std::vector<ClientBatch> const& clients, at::Tensor& sums) {
  PassOptions options{.packing = clients.front().batch.packing};
  std::vector<int64_t> ids, offsets{0}, positions, targets, owners;
  std::vector<double> weights;
  for (auto const& [batch, dropout, slot, all_targets, loss_scale] : clients) {
    options.segments.push_back({batch.num_rows(), dropout, batch.first_row, slot});
    auto const before = static_cast<int64_t>(ids.size());
    ids.insert(ids.end(), batch.ids.begin(), batch.ids.end());
    for (size_t row = 1; row < batch.offsets.size(); ++row) offsets.push_back(before + batch.offsets[row]);
    for (int64_t const position : batch.target_positions) positions.push_back(before + position);
    targets.insert(targets.end(), batch.target_ids.begin(), batch.target_ids.end());
    weights.insert(weights.end(), batch.target_ids.size(), loss_scale / static_cast<double>(all_targets));
    owners.insert(owners.end(), batch.target_ids.size(), static_cast<int64_t>(options.segments.size()) - 1);
  }
  at::Device const device(model.device());
  RaggedInput const input{at::tensor(ids, at::kLong), offsets};
  auto const pass = model.pass(input, options);
  auto const hidden = model.hidden_states(input.ids, pass).index_select(0, index_tensor(positions, model));
  at::Tensor losses;
  auto const loss = weighted_head_loss(model, {hidden, index_tensor(targets, model), {}},
                                       at::tensor(weights, at::kDouble).to(device), losses);
  sums =
      at::zeros({std::ssize(clients)}, losses.options()).index_add_(0, index_tensor(owners, model), losses);
  return loss;
}

namespace {

/// All rows of a split, from the longest to the shortest, as batches of about `batch_tokens` tokens.
template <class Take>
void for_each_batch(TokenSplit const& split, BatchConfig const& config, int64_t batch_tokens,
                    Take const& take) {
  auto const lengths = row_lengths(split);
  std::vector<size_t> rows(lengths.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(), [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
  for (size_t next = 0; next < rows.size();) {
    Batch batch;
    batch.packing = config.packing;
    do {
      append_row(batch, split, static_cast<int64_t>(rows[next++]));
    } while (next < rows.size() && batch.num_tokens() + lengths[rows[next]] <= batch_tokens);
    if (batch.num_targets() > 0) take(batch);
  }
}

}  // namespace

SplitLoss evaluate_split(CausalLM& model, TokenSplit const& split, BatchConfig const& config,
                         int64_t batch_tokens, RankGroup const* group) {
  at::NoGradGuard const no_grad;
  SplitLoss total;
  at::Tensor sum = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(at::Device(model.device())));
  auto const add = [&](Batch const& batch, bool counts) {
    auto const loss = summed_loss(model, batch);
    if (counts) sum.add_(loss);
  };
  for_each_batch(split, config, batch_tokens * (group ? group->size() : 1), [&](Batch const& batch) {
    total.targets += batch.num_targets();
    total.rows += batch.num_rows();
    if (!group) return add(batch, true);
    auto const share = group->share_of(batch);
    add(share.batch, share.counts);
  });
  total.sum = group ? group->sum(sum.item<double>()) : sum.item<double>();
  return total;
}

at::Tensor row_losses(CausalLM& model, Batch const& batch, std::optional<DropoutKey> const& dropout,
                      double upstream) {
  auto const losses = head_losses(model, scored_tokens(model, batch, dropout), upstream);
  std::vector<at::Tensor> rows;
  for (auto const& row : losses.split_with_sizes(targets_by_row(batch))) rows.push_back(row.sum());
  return at::stack(rows);
}

std::vector<double> row_losses(CausalLM& model, TokenSplit const& split, BatchConfig const& config,
                               int64_t batch_tokens) {
  at::NoGradGuard const no_grad;
  std::vector<double> losses(static_cast<size_t>(split.rows()));
  for_each_batch(split, config, batch_tokens, [&](Batch const& batch) {
    auto const of_batch = row_losses(model, batch).cpu();
    for (size_t i = 0; i < batch.rows.size(); ++i)
      losses[static_cast<size_t>(batch.rows[i])] = of_batch[static_cast<int64_t>(i)].item<double>();
  });
  return losses;
}

}  // namespace fsllm
