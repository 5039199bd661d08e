// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

namespace fsllm::detail {

enum class StoredType { fp32, bf16, fp16, int8 };

/// y [rows, stride] = x [rows, terms] · Wᵀ; W [.., terms] contiguous; int8: times a scale a row of W.
struct SkinnyProduct {
  StoredType type = StoredType::fp32;
  void const* weight = nullptr;
  float const* scales = nullptr;
  float const* x = nullptr;
  int64_t rows = 0, terms = 0;
  float* y = nullptr;
  int64_t stride = 0;
};

/// One query token of one row against its cached ones: out [heads, dim] = softmax(cap · tanh(scale · q·k /
/// cap) − slope · distance) · v.
struct OneQuery {
  float const *q = nullptr, *keys = nullptr,
              *values = nullptr;  ///< q [heads, dim], others [tokens, kv_heads, dim]
  int64_t tokens = 0, heads = 0, kv_heads = 0, dim = 0;
  float scale = 1, softcap = 0;   ///< softcap 0: none
  float const* slopes = nullptr;  ///< [heads] or null
  float* weights = nullptr;       ///< room for [tokens]
  float* out = nullptr;
};

/// RMSNorm of rows [.., size] with one number a row, 1 / sqrt(mean(x²) + eps), which forward writes (where
/// it is wanted) and backward reads. y: the result, or the gradient of x. As below, values of `type` (not
/// int8) are computed with as floats.
struct RmsRows {
  StoredType type = StoredType::fp32;  ///< of x, grad and y
  void const *x = nullptr, *grad = nullptr;
  float const* weight = nullptr;
  int64_t size = 0;
  float eps = 0;
  float* inverse = nullptr;
  void* y = nullptr;
};

/// Rotary embedding of x [tokens, heads, dim] with strides, by cos and sin [tokens, pairs]; sign −1: back. y
/// is contiguous.
struct Rotation {
  StoredType type = StoredType::fp32;
  void const *x = nullptr, *cos = nullptr, *sin = nullptr;
  int64_t token_stride = 0, head_stride = 0, heads = 0, dim = 0, pairs = 0;
  float sign = 1;
  bool neighbours = false;
  void* y = nullptr;
};

/// silu(gate) · up of rows [.., size]. y: the result, or the gradient of gate.
struct GatedRows {
  StoredType type = StoredType::fp32;
  void const *gate = nullptr, *up = nullptr, *grad = nullptr;
  int64_t gate_stride = 0, up_stride = 0, size = 0;
  void *y = nullptr, *grad_up = nullptr;
};

/// out [rows, columns] (+)= left [rows, terms] · right [terms, columns], where rows or terms are few: element
/// (i, k) of left at left[i · left_row + k · left_term], the rows of the others contiguous. One of right and
/// out is of floats, the other of any type but int8; sums are floats, in the order of the terms.
struct ThinProduct {
  float const* left = nullptr;
  int64_t left_row = 0, left_term = 0;
  StoredType right_type = StoredType::fp32, out_type = StoredType::fp32;
  void const* right = nullptr;
  int64_t right_row = 0, rows = 0, terms = 0;
  void* out = nullptr;
  int64_t out_row = 0;
  bool adds = false;
};

/// Query tokens that are worked on together.
inline constexpr int64_t kCausalQueries = 48;

/// Attention of rows in which each token sees those before it (and itself) of its row, at most `window` of
/// them (0: all): softmax(scale · q·k − slope · distance) · v. Row r has queries [firsts[r], firsts[r + 1])
/// and `past` keys more in front of its own. q [N, heads, dim], k and v [N + rows · past, kv_heads, dim] with
/// strides and contiguous dims; out and the gradients are contiguous. `sums`: the logarithms of the
/// softmaxes' sums [N, heads], which forward writes and backward reads.
struct CausalRows {
  StoredType type = StoredType::fp32;  ///< of all but `sums`; not int8
  void const *q = nullptr, *k = nullptr, *v = nullptr, *grad = nullptr;
  int64_t q_token = 0, q_head = 0, k_token = 0, k_head = 0, v_token = 0, v_head = 0;
  int64_t const* firsts = nullptr;
  int64_t past = 0, longest = 0, window = 0;  ///< longest: most keys of a row
  int64_t heads = 0, kv_heads = 0, dim = 0;
  float scale = 1;
  float const* slopes = nullptr;  ///< [heads] or null
  void* out = nullptr;
  float* sums = nullptr;
  void *grad_q = nullptr, *grad_k = nullptr, *grad_v = nullptr;
};
/// Floats that a thread works in.
int64_t room_of(CausalRows const& rows);

/// Loops for an instruction set.
struct CpuKernels {
  /// Columns [begin, end).
  void (*skinny_product)(SkinnyProduct const& product, int64_t begin, int64_t end);
  void (*thin_product)(ThinProduct const& product, int64_t begin, int64_t end);
  void (*one_query)(OneQuery const& query);
  /// Rows (tokens) [begin, end).
  void (*rms_norm)(RmsRows const& rows, int64_t begin, int64_t end);
  void (*rms_norm_backward)(RmsRows const& rows, int64_t begin, int64_t end);
  void (*rotate)(Rotation const& rotation, int64_t begin, int64_t end);
  void (*swiglu)(GatedRows const& rows, int64_t begin, int64_t end);
  void (*swiglu_backward)(GatedRows const& rows, int64_t begin, int64_t end);
  /// Pairs of a row and a key head [begin, end), in room_of() floats.
  void (*causal)(CausalRows const& rows, float* room, int64_t begin, int64_t end);
  void (*causal_backward)(CausalRows const& rows, float* room, int64_t begin, int64_t end);
};

extern CpuKernels const kAvx2Kernels, kAvx512Kernels;

/// Those of this processor; null where it has neither.
CpuKernels const* cpu_kernels();

}  // namespace fsllm::detail
