// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "fsllm/model/linear.hpp"

/// Differentiable operations that keep less for the backward pass than the same thing built from at::
/// operations.
namespace fsllm::detail {

/// x Wᵀ for x [N, in] and the frozen weight of `linear`, which is stored in another type or quantised.
/// Converts a few rows of it at a time, in both passes, and saves nothing else.
at::Tensor frozen_matmul(at::Tensor const& x, Linear const& linear);

/// x · w / sqrt(mean(x²) + eps) over the last dimension (Zhang & Sennrich 2019, eq. 4), computed in fp32
/// (fp64 if x is), returned in x's type. Saves x and one number a row.
at::Tensor rms_norm(at::Tensor const& x, at::Tensor const& weight, double eps);

/// Rotary position embedding (Su et al. 2021, eq. 34) of the first R of D dimensions: x [N, heads, D], cos
/// and sin [N, 1, R/2] → [N, heads, D]. Pairs are (i, i + R/2), the layout of most Hugging Face files, or
/// `neighbours` (2i, 2i + 1). Saves nothing of x.
at::Tensor rotate(at::Tensor const& x, at::Tensor const& cos, at::Tensor const& sin, bool neighbours = false);

/// cap · tanh(x / cap) (Gemma Team 2024, section 2).
at::Tensor soft_cap(at::Tensor const& x, double cap);

/// Which tokens see which: row r has the queries [firsts[r], firsts[r + 1]), each of which sees `past` keys
/// in front of its row's own, and of these those up to its own; of all at most the last `window` (0: all).
/// Scores are scale · q·k − slopes · distance.
struct CausalRule {
  std::vector<int64_t> firsts;
  int64_t past = 0, window = 0;
  double scale = 1;
  at::Tensor slopes;  ///< [heads] or undefined
};
/// softmax(scores) v of q [N, heads, D], k and v [N + rows · past, kv_heads, D] → [N, heads · D], in fp32
/// whatever the type, where there are loops for it (have_kernels). Saves its arguments and one number a token
/// and head.
at::Tensor causal_attention(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v,
                            CausalRule const& rule);

/// silu(gate) · up (Shazeer 2020, eq. 6). Saves gate and up.
at::Tensor swiglu(at::Tensor const& gate, at::Tensor const& up);

}  // namespace fsllm::detail
