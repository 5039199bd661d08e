// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <span>

#include "fsllm/data/loss_kind.hpp"
#include "fsllm/train/loss.hpp"

namespace fsllm {

/// Losses of pairs (x, y_w, y_l): -log σ(r(x, y_w) - r(x, y_l)), Bradley and Terry's model of preferences
/// (1952). The reward under dpo is r = β (log π(y | x) - log π_ref(y | x)), the sum over the answer's tokens
/// (Rafailov et al. 2023, equation 7); under reward the same over the number of these tokens, so that long
/// answers have no larger ones (length-normalised DPO, Lambert et al. 2024).
struct PairLoss {
  LossKind kind = LossKind::dpo;
  double beta = 0.1;
};

/// Loss summed over the batch's pairs (scalar, fp64; differentiable). Its `reference` holds row_losses of the
/// reference model. `upstream` as in summed_loss.
at::Tensor summed_pair_loss(CausalLM& model, Batch const& batch, PairLoss const& loss,
                            std::optional<DropoutKey> const& dropout = {}, double upstream = 1);

/// The loss of all pairs of a split, without gradients, given row_losses of the reference.
SplitLoss evaluate_pairs(CausalLM& model, TokenSplit const& split, std::span<double const> reference,
                         PairLoss const& loss, BatchConfig const& config = {});

}  // namespace fsllm
