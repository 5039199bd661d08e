// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/loss.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

namespace fsllm {
namespace {

at::Tensor index_tensor(std::vector<int64_t> const& values, CausalLM const& model) {
  return at::tensor(values, at::kLong).to(at::Device(model.device()));
}

}  // namespace

at::Tensor summed_loss(CausalLM& model, Batch const& batch, ForwardContext& context) {
  RaggedInput input{index_tensor(batch.ids, model), batch.offsets};
  auto const hidden = model.hidden_states(input, context);
  auto const at_targets = hidden.index_select(0, index_tensor(batch.target_positions, model));
  auto const logits = model.logits(at_targets);
  auto const wide = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  return at::cross_entropy_loss(wide, index_tensor(batch.target_ids, model), {}, at::Reduction::Sum);
}

SplitLoss evaluate_split(CausalLM& model, TokenSplit const& split, int64_t batch_tokens) {
  at::NoGradGuard const no_grad;
  ForwardContext context;
  SplitLoss total;
  for (int64_t row = 0; row < split.rows();) {
    Batch batch;
    do {
      append_row(batch, split, row++);
    } while (row < split.rows() &&
             batch.num_tokens() + split.offsets[row + 1] - split.offsets[row] <= batch_tokens);
    if (batch.num_targets() == 0) continue;
    total.sum += summed_loss(model, batch, context).item<double>();
    total.targets += batch.num_targets();
    total.rows += batch.num_rows();
  }
  return total;
}

}  // namespace fsllm
