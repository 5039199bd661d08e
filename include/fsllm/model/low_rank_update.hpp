// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "fsllm/model/pass.hpp"

namespace fsllm {

/// y + s · (drop(x) Aᵀ) Bᵀ (Hu et al. 2021, eq. 3) for x [N, in], y [N, out], A [r, in], B [out, r], into y.
/// `keep_mask` [N, in] (bool, may be undefined) holds the inputs that dropout keeps, which are scaled by
/// 1/keep. Saves x, x Aᵀ and the mask. On CPUs with loops for it A, B, x Aᵀ and the sums are fp32 whatever
/// the type of x; elsewhere A and B are used in x's type. Their gradients have their own.
at::Tensor add_low_rank(at::Tensor const& x, at::Tensor const& y, at::Tensor const& a, at::Tensor const& b,
                        at::Tensor const& keep_mask, double keep, double scale);

/// The same for a [clients, r, in], b [clients, out, r] where each segment's tokens belong to the adapter in
/// its slot.
at::Tensor add_low_rank(at::Tensor const& x, at::Tensor const& y, at::Tensor const& a, at::Tensor const& b,
                        std::span<PassSegment const> segments, at::Tensor const& keep_mask, double keep,
                        double scale);

}  // namespace fsllm
