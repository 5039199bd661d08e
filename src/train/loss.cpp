// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/loss.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/split_with_sizes.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>

#include "fsllm/train/rank_group.hpp"

namespace fsllm {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rows of logits that are in memory at once: enough to keep the GEMM efficient, small against the whole.
constexpr int64_t kChunkRows = 128;

at::Tensor index_tensor(std::vector<int64_t> const& values, CausalLM const& model) {
  return at::tensor(values, at::kLong).to(at::Device(model.device()));
}

at::Tensor in_sum_type(at::Tensor const& logits) {
  return logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
}

/// Sums of losses stay on the device: nothing waits for it until the caller asks.
at::Tensor zero_sum(at::Tensor const& hidden) {
  return at::zeros({}, hidden.options().dtype(at::kDouble).requires_grad(false));
}

/// Sum over rows of the cross-entropy; hidden [M, D], ids [M].
at::Tensor loss_of(CausalLM const& model, at::Tensor const& hidden, at::Tensor const& ids, Pass const& pass) {
  return at::cross_entropy_loss(in_sum_type(model.logits(hidden, pass)), ids, {}, at::Reduction::Sum);
}

/// The same without autograd, for logits [M, vocab] that nobody needs any more: with `to_gradient` they
/// become the gradient softmax(logits) - onehot(ids). [M], on the device.
at::Tensor take_losses(at::Tensor const& logits, at::Tensor const& ids, bool to_gradient) {
  auto const column = ids.unsqueeze(1);
  logits.sub_(logits.amax(1, true));
  auto const of_target = logits.gather(1, column);
  auto const total = logits.exp_().sum(1, true);
  if (to_gradient) logits.div_(total).scatter_add_(1, column, at::full_like(of_target, -1));
  return total.log().sub_(of_target).squeeze(1);
}

at::Tensor take_loss(at::Tensor const& logits, at::Tensor const& ids, bool to_gradient) {
  return take_losses(logits, ids, to_gradient).sum().to(at::kDouble);
}

/// Under a frozen head: the gradient of the rows' losses [M] by hidden [M, D], and those losses, in parts.
/// Each chunk's gradient is taken while its logits are at hand, so neither all logits nor their gradient ever
/// exist at once.
at::Tensor gradient_by_chunks(CausalLM const& model, at::Tensor const& hidden, at::Tensor const& ids,
                              std::vector<at::Tensor>& losses) {
  at::AutoGradMode const with_gradients(true);
  std::vector<at::Tensor> gradients;
  for (int64_t begin = 0; begin < hidden.size(0); begin += kChunkRows) {
    int64_t const count = std::min(kChunkRows, hidden.size(0) - begin);
    auto const rows = hidden.detach().narrow(0, begin, count).requires_grad_(true);
    auto const logits = model.logits(rows);
    auto const gradient = in_sum_type(logits.detach());
    losses.push_back(take_losses(gradient, ids.narrow(0, begin, count), true));
    logits.backward(gradient.to(logits.scalar_type()));
    gradients.push_back(rows.grad());
  }
  return at::cat(gradients);
}

at::ScalarType type_of_sum(at::Tensor const& hidden) {
  return hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

struct ChunkedLoss : torch::autograd::Function<ChunkedLoss> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& hidden, at::Tensor const& ids,
                            CausalLM const* model) {
    std::vector<at::Tensor> losses;
    ctx->save_for_backward({gradient_by_chunks(*model, hidden, ids, losses)});
    auto sum = zero_sum(hidden);
    for (auto const& part : losses) sum.add_(part.sum().to(at::kDouble));
    return sum.to(type_of_sum(hidden));
  }
  static variable_list backward(AutogradContext* ctx, variable_list const& grad) {
    auto const saved = ctx->get_saved_variables().at(0);
    return {saved.mul(grad.at(0).to(saved.scalar_type())), at::Tensor(), at::Tensor()};
  }
};

/// Σ weight · loss of rows, whose losses [M] go into `losses` in fp64.
struct WeightedLoss : torch::autograd::Function<WeightedLoss> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& hidden, at::Tensor const& ids,
                            at::Tensor const& weights, CausalLM const* model, at::Tensor* losses) {
    std::vector<at::Tensor> parts;
    auto const gradient = gradient_by_chunks(*model, hidden, ids, parts);
    ctx->save_for_backward({gradient.mul(weights.to(gradient.scalar_type()).unsqueeze(1))});
    *losses = at::cat(parts).to(at::kDouble);
    return losses->mul(weights).sum().to(type_of_sum(hidden));
  }
  static variable_list backward(AutogradContext* ctx, variable_list const& grad) {
    auto const saved = ctx->get_saved_variables().at(0);
    return {saved.mul(grad.at(0).to(saved.scalar_type())), {}, {}, {}, {}};
  }
};

/// The losses of rows [M], fp64.
struct ChunkedLosses : torch::autograd::Function<ChunkedLosses> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& hidden, at::Tensor const& ids,
                            CausalLM const* model) {
    std::vector<at::Tensor> parts;
    ctx->save_for_backward({gradient_by_chunks(*model, hidden, ids, parts)});
    return at::cat(parts).to(at::kDouble);
  }
  static variable_list backward(AutogradContext* ctx, variable_list const& grad) {
    auto const saved = ctx->get_saved_variables().at(0);
    return {saved.mul(grad.at(0).to(saved.scalar_type()).unsqueeze(1)), at::Tensor(), at::Tensor()};
  }
};

at::Tensor loss_without_gradients(CausalLM const& model, at::Tensor const& hidden, at::Tensor const& ids) {
  auto sum = zero_sum(hidden);
  for (int64_t begin = 0; begin < hidden.size(0); begin += kChunkRows) {
    int64_t const count = std::min(kChunkRows, hidden.size(0) - begin);
    sum.add_(take_loss(in_sum_type(model.logits(hidden.narrow(0, begin, count))), ids.narrow(0, begin, count),
                       false));
  }
  return sum;
}

/// Of each target, fp64 [M].
at::Tensor losses_without_gradients(CausalLM const& model, at::Tensor const& hidden, at::Tensor const& ids) {
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < hidden.size(0); begin += kChunkRows) {
    int64_t const count = std::min(kChunkRows, hidden.size(0) - begin);
    parts.push_back(take_losses(in_sum_type(model.logits(hidden.narrow(0, begin, count))),
                                ids.narrow(0, begin, count), false));
  }
  return at::cat(parts).to(at::kDouble);
}

/// Without gradients, and without an adapter that would need the pass (dropout) at the head.
bool head_in_chunks(CausalLM& model) {
  return !at::GradMode::is_enabled() && model.head().adapter == nullptr;
}

/// What is seen of a batch where successors are scored: hidden states [M, D], and the pass of these tokens.
struct AtTargets {
  at::Tensor hidden;
  Pass pass;
};

AtTargets at_targets(CausalLM const& model, Batch const& batch, std::optional<DropoutKey> const& dropout) {
  PassOptions options{.packing = batch.packing};
  if (dropout) options.segments = {{batch.num_rows(), *dropout, batch.first_row}};
  RaggedInput const input{at::tensor(batch.ids, at::kLong), batch.offsets};
  auto const pass = model.pass(input, options);
  auto const positions = index_tensor(batch.target_positions, model);
  return {model.hidden_states(input.ids, pass).index_select(0, positions), pass.at(positions)};
}

}  // namespace

at::Tensor summed_loss(CausalLM& model, Batch const& batch, std::optional<DropoutKey> const& dropout) {
  auto const [hidden, pass] = at_targets(model, batch, dropout);
  auto const ids = index_tensor(batch.target_ids, model);
  if (head_in_chunks(model)) return loss_without_gradients(model, hidden, ids);
  if (model.head_requires_grad()) return loss_of(model, hidden, ids, pass);
  return ChunkedLoss::apply(hidden, ids, &model);
}

at::Tensor shared_loss(CausalLM& model, std::vector<ClientBatch> const& clients, at::Tensor& sums) {
  PassOptions options{.packing = clients.front().batch.packing};
  std::vector<int64_t> ids, offsets{0}, positions, targets, owners;
  std::vector<double> weights;
  for (auto const& [batch, dropout, slot, all_targets] : clients) {
    options.segments.push_back({batch.num_rows(), dropout, batch.first_row, slot});
    auto const before = static_cast<int64_t>(ids.size());
    ids.insert(ids.end(), batch.ids.begin(), batch.ids.end());
    for (size_t row = 1; row < batch.offsets.size(); ++row) offsets.push_back(before + batch.offsets[row]);
    for (int64_t const position : batch.target_positions) positions.push_back(before + position);
    targets.insert(targets.end(), batch.target_ids.begin(), batch.target_ids.end());
    weights.insert(weights.end(), batch.target_ids.size(), 1 / static_cast<double>(all_targets));
    owners.insert(owners.end(), batch.target_ids.size(), static_cast<int64_t>(options.segments.size()) - 1);
  }
  at::Device const device(model.device());
  RaggedInput const input{at::tensor(ids, at::kLong), offsets};
  auto const pass = model.pass(input, options);
  auto const hidden = model.hidden_states(input.ids, pass).index_select(0, index_tensor(positions, model));
  at::Tensor losses;
  auto const loss = WeightedLoss::apply(hidden, index_tensor(targets, model),
                                        at::tensor(weights, at::kDouble).to(device), &model, &losses);
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
    auto const hidden = at_targets(model, batch, {}).hidden;
    auto const loss = loss_without_gradients(model, hidden, index_tensor(batch.target_ids, model));
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

at::Tensor row_losses(CausalLM& model, Batch const& batch, std::optional<DropoutKey> const& dropout) {
  auto const [hidden, pass] = at_targets(model, batch, dropout);
  auto const ids = index_tensor(batch.target_ids, model);
  auto const losses =
      head_in_chunks(model) ? losses_without_gradients(model, hidden, ids)
      : model.head_requires_grad()
          ? at::cross_entropy_loss(in_sum_type(model.logits(hidden, pass)), ids, {}, at::Reduction::None)
                .to(at::kDouble)
          : ChunkedLosses::apply(hidden, ids, &model);
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
