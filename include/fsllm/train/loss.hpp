// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "fsllm/data/batch.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// Cross-entropy summed over the batch's targets (scalar, fp32; differentiable). The head runs at positions
/// with a target only. `dropout`: of which step masks are drawn; without, nothing is dropped.
at::Tensor summed_loss(CausalLM& model, Batch const& batch, std::optional<DropoutKey> const& dropout = {});

/// Σ over rows of weight · summed loss, `weights` by row of the batch (scalar; differentiable).
at::Tensor weighted_loss(CausalLM& model, Batch const& batch, std::vector<double> const& weights,
                         std::optional<DropoutKey> const& dropout = {});

/// One client's part of a pass that several share.
struct ClientBatch {
  Batch const& batch;
  DropoutKey dropout;
  int64_t slot = 0;     ///< PassSegment::slot
  int64_t targets = 0;  ///< of the client's whole step, above 0
};
/// Σ over clients of (summed loss / targets): each adapter's gradient is that of its client's mean loss.
/// `sums` are the summed losses, fp64 [clients], without gradients. The head must be frozen.
at::Tensor shared_loss(CausalLM& model, std::vector<ClientBatch> const& clients, at::Tensor& sums);

/// Sum of the loss over all rows of a split and the number of targets, without gradients. Rows are taken from
/// the longest to the shortest, at most `batch_tokens` tokens (and at least one row) a forward pass, so the
/// result depends on the data alone; of `config` it takes the packing.
struct SplitLoss {
  double sum = 0;
  int64_t targets = 0, rows = 0;
};
SplitLoss evaluate_split(CausalLM& model, TokenSplit const& split, BatchConfig const& config = {},
                         int64_t batch_tokens = 2048);

/// The summed loss of each row, fp64 [rows] on the host, and the number of targets; in passes as
/// evaluate_split's.
struct RowLosses {
  at::Tensor losses;
  int64_t targets = 0;
};
RowLosses row_losses(CausalLM& model, TokenSplit const& split, BatchConfig const& config = {},
                     int64_t batch_tokens = 2048);

}  // namespace fsllm
