// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "fsllm/data/batch.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// Cross-entropy summed over the batch's targets (scalar, fp32; differentiable). The head runs at positions
/// with a target only. `dropout`: of which step masks are drawn; without, nothing is dropped.
at::Tensor summed_loss(CausalLM& model, Batch const& batch, std::optional<DropoutKey> const& dropout = {});

/// Sum of the loss over all rows of a split and the number of targets, without gradients. Rows are taken from
/// the longest to the shortest, at most `batch_tokens` tokens (and at least one row) a forward pass, so the
/// result depends on the data alone; of `config` it takes the packing.
struct SplitLoss {
  double sum = 0;
  int64_t targets = 0, rows = 0;
};
SplitLoss evaluate_split(CausalLM& model, TokenSplit const& split, BatchConfig const& config = {},
                         int64_t batch_tokens = 2048);

}  // namespace fsllm
