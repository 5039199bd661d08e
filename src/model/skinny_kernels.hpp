// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

namespace fsllm::detail {

enum class StoredType { fp32, bf16, fp16, int8 };

/// y [rows, stride] = x [rows, terms] · Wᵀ; W [.., terms] contiguous, in fp16's, bf16's … bits; int8: times a
/// scale a row of W.
struct SkinnyProduct {
  StoredType type = StoredType::fp32;
  void const* weight = nullptr;
  float const* scales = nullptr;
  float const* x = nullptr;
  int64_t rows = 0, terms = 0;
  float* y = nullptr;
  int64_t stride = 0;
};

/// Columns [begin, end) of y. The processor must have the instructions.
void skinny_avx2(SkinnyProduct const& product, int64_t begin, int64_t end);
void skinny_avx512(SkinnyProduct const& product, int64_t begin, int64_t end);

}  // namespace fsllm::detail
