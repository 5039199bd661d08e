// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// Where successors are scored: what the head sees there [M, D], the ids of the successors [M], and the pass
/// of these tokens.
struct ScoredTokens {
  at::Tensor hidden, ids;
  Pass pass;
};

/// Σ cross-entropy of the tokens (scalar, fp32; fp64 under fp64), differentiable by the hidden states and by
/// what the head learns. Logits exist a chunk of rows at a time: with gradients, a chunk's are taken while
/// its logits are at hand, as in Liger Kernel's fused linear cross-entropy (Hsu et al. 2024). `upstream` is
/// what the backward pass will begin with, where it is known: fp16 gradients are computed in that size.
at::Tensor summed_head_loss(CausalLM& model, ScoredTokens const& tokens, double upstream);

/// The loss of each token, fp64 [M], likewise. Under a head that learns logits are computed again in the
/// backward pass, for only then the weight of each loss is known.
at::Tensor head_losses(CausalLM& model, ScoredTokens const& tokens, double upstream);

/// Σ weights · loss under a frozen head; `weights` [M] and `losses` are fp64.
at::Tensor weighted_head_loss(CausalLM& model, ScoredTokens const& tokens, at::Tensor const& weights,
                              at::Tensor& losses);

}  // namespace fsllm
