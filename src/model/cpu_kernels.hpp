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

/// Loops for an instruction set.
struct CpuKernels {
  /// Columns [begin, end) of y.
  void (*skinny_product)(SkinnyProduct const& product, int64_t begin, int64_t end);
  void (*one_query)(OneQuery const& query);
};

extern CpuKernels const kAvx2Kernels, kAvx512Kernels;

/// Those of this processor; null where it has neither.
CpuKernels const* cpu_kernels();

}  // namespace fsllm::detail
