// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "fsllm/data/batch.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

class RankGroup;

/// Cross-entropy summed over the batch's targets (scalar, fp32; differentiable). The head runs at positions
/// with a target only. `dropout`: of which step masks are drawn; without, nothing is dropped. `upstream`:
/// what the backward pass will begin with, where it is known (fp16 gradients are computed in that size).
at::Tensor summed_loss(CausalLM& model, Batch const& batch, std::optional<DropoutKey> const& dropout = {},
                       double upstream = 1);

/// The same row by row, fp64 [rows]: -log p of each row's answer.
at::Tensor row_losses(CausalLM& model, Batch const& batch, std::optional<DropoutKey> const& dropout = {},
                      double upstream = 1);

/// One client's part of a pass that several share.
struct ClientBatch {
  Batch const& batch;
  DropoutKey dropout;
  int64_t slot = 0;     ///< PassSegment::slot
  int64_t targets = 0;  ///< of the client's whole step, above 0
  double loss_scale = 1;
};
/// Σ over clients of (loss scale · summed loss / targets): each adapter's gradient is that of its client's
/// mean loss, scaled. `sums` are the summed losses, fp64 [clients], without gradients. The head must be
/// frozen.
at::Tensor shared_loss(CausalLM& model, std::vector<ClientBatch> const& clients, at::Tensor& sums);

/// Loss of a split: of rows with one answer summed over targets, of pairs over these.
struct SplitLoss {
  double sum = 0;
  int64_t targets = 0, rows = 0;
  int64_t pairs = 0, wins = 0;  ///< wins: the chosen answer has the larger reward
  double margin = 0;            ///< Σ over pairs of the difference of rewards
  bool of_pairs = false;
  int64_t terms() const { return of_pairs ? pairs : targets; }
};
/// Sum of the loss over all rows of a split and the number of targets, without gradients. Rows are taken from
/// the longest to the shortest, at most `batch_tokens` tokens (and at least one row) a forward pass, so the
/// result depends on the data alone; of `config` it takes the packing. With a `group` each of its ranks takes
/// its share of the rows of each pass, of as many more tokens: Collective over it.
SplitLoss evaluate_split(CausalLM& model, TokenSplit const& split, BatchConfig const& config = {},
                         int64_t batch_tokens = 2048, RankGroup const* group = nullptr);
/// -log p of each row's answer, in batches made likewise.
std::vector<double> row_losses(CausalLM& model, TokenSplit const& split, BatchConfig const& config = {},
                               int64_t batch_tokens = 2048);

}  // namespace fsllm
