// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/loss.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>

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
/// become the gradient softmax(logits) - onehot(ids). A scalar in fp64, on the device.
at::Tensor take_loss(at::Tensor const& logits, at::Tensor const& ids, bool to_gradient) {
  auto const column = ids.unsqueeze(1);
  logits.sub_(logits.amax(1, true));
  auto const of_target = logits.gather(1, column);
  auto const total = logits.exp_().sum(1, true);
  if (to_gradient) logits.div_(total).scatter_add_(1, column, at::full_like(of_target, -1));
  return total.log().sub_(of_target).sum().to(at::kDouble);
}

/// Loss under a frozen head: the gradient of each chunk of rows is taken while its logits are at hand, so
/// neither all logits nor their gradient ever exist at once.
struct ChunkedLoss : torch::autograd::Function<ChunkedLoss> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& hidden, at::Tensor const& ids,
                            CausalLM const* model) {
    at::AutoGradMode const with_gradients(true);
    std::vector<at::Tensor> gradients;
    auto sum = zero_sum(hidden);
    for (int64_t begin = 0; begin < hidden.size(0); begin += kChunkRows) {
      int64_t const count = std::min(kChunkRows, hidden.size(0) - begin);
      auto const rows = hidden.detach().narrow(0, begin, count).requires_grad_(true);
      auto const logits = model->logits(rows);
      auto const gradient = in_sum_type(logits.detach());
      sum.add_(take_loss(gradient, ids.narrow(0, begin, count), true));
      logits.backward(gradient.to(logits.scalar_type()));
      gradients.push_back(rows.grad());
    }
    ctx->save_for_backward({at::cat(gradients)});
    return sum.to(hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  }
  static variable_list backward(AutogradContext* ctx, variable_list const& grad) {
    auto const saved = ctx->get_saved_variables().at(0);
    return {saved.mul(grad.at(0).to(saved.scalar_type())), at::Tensor(), at::Tensor()};
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
  if (model.head_requires_grad()) return loss_of(model, hidden, ids, pass);
  return ChunkedLoss::apply(hidden, ids, &model);
}

SplitLoss evaluate_split(CausalLM& model, TokenSplit const& split, BatchConfig const& config,
                         int64_t batch_tokens) {
  at::NoGradGuard const no_grad;
  SplitLoss total;
  at::Tensor sum = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(at::Device(model.device())));
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
    if (batch.num_targets() == 0) continue;
    auto const hidden = at_targets(model, batch, {}).hidden;
    sum.add_(loss_without_gradients(model, hidden, index_tensor(batch.target_ids, model)));
    total.targets += batch.num_targets();
    total.rows += batch.num_rows();
  }
  total.sum = sum.item<double>();
  return total;
}

}  // namespace fsllm
