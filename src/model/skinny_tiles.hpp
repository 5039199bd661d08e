// SPDX-License-Identifier: Apache-2.0
// The loops of skinny products over vectors `Lanes`, which the including file defines for its instruction
// set.
#pragma once
#include <cstring>

#include "cpu_kernels.hpp"

namespace fsllm::detail {
namespace {

struct BFloat16Bits {
  uint16_t bits;
};
struct HalfBits {
  uint16_t bits;
};

inline float value_of(float x) {
  return x;
}
inline float value_of(int8_t x) {
  return x;
}
inline float value_of(BFloat16Bits x) {
  uint32_t const wide = static_cast<uint32_t>(x.bits) << 16;
  float value = 0;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}
inline float value_of(HalfBits x) {
  return half_value(x.bits);
}

/// Bytes ahead that are asked for: the weight is read once, and its rows are too short for the processor to
/// see where the next ones lie.
constexpr int64_t kAhead = 16384;

/// Dots of kWeights rows of W with kRows rows of x; each dot is kept in kParts sums.
template <int kWeights, int kRows, int kParts, class T>
inline void tile(SkinnyProduct const& p, T const* weight, int64_t column, int64_t row) {
  Lanes sums[kWeights][kRows][kParts];
  for (auto& of_weight : sums)
    for (auto& of_row : of_weight)
      for (auto& sum : of_row) sum = zeros();
  float const* const x = p.x + row * p.terms;
  int64_t i = 0;
  for (; i + kParts * kLanes <= p.terms; i += kParts * kLanes) {
    for (int a = 0; a < kWeights; ++a)
      prefetch(reinterpret_cast<char const*>(weight + a * p.terms + i) + kAhead);
    for (int part = 0; part < kParts; ++part) {
      int64_t const place = i + part * kLanes;
      Lanes w[kWeights];
      for (int a = 0; a < kWeights; ++a) w[a] = load(weight + a * p.terms + place);
      for (int b = 0; b < kRows; ++b) {
        auto const values = load(x + b * p.terms + place);
        for (int a = 0; a < kWeights; ++a) sums[a][b][part] = multiply_add(w[a], values, sums[a][b][part]);
      }
    }
  }
  for (int a = 0; a < kWeights; ++a)
    for (int b = 0; b < kRows; ++b) {
      for (int part = 1; part < kParts; ++part) sums[a][b][0] = add(sums[a][b][0], sums[a][b][part]);
      float sum = total(sums[a][b][0]);
      for (int64_t rest = i; rest < p.terms; ++rest)
        sum += value_of(weight[a * p.terms + rest]) * x[b * p.terms + rest];
      p.y[(row + b) * p.stride + column + a] = p.scales == nullptr ? sum : sum * p.scales[column + a];
    }
}

template <int kWeights, class T>
inline void rows_of_tile(SkinnyProduct const& p, T const* weight, int64_t column) {
  int64_t row = 0;
  for (; row + kTileRows <= p.rows; row += kTileRows) tile<kWeights, kTileRows, 1>(p, weight, column, row);
  for (; row < p.rows; ++row) tile<kWeights, 1, 1>(p, weight, column, row);
}

template <class T>
inline void columns(SkinnyProduct const& p, int64_t begin, int64_t end) {
  auto const* const weight = static_cast<T const*>(p.weight);
  int64_t column = begin;
  if (p.rows == 1) {  // one stream of memory
    for (; column < end; ++column) tile<1, 1, 2>(p, weight + column * p.terms, column, 0);
    return;
  }
  for (; column + kTileWeights <= end; column += kTileWeights)
    rows_of_tile<kTileWeights>(p, weight + column * p.terms, column);
  for (; column < end; ++column) rows_of_tile<1>(p, weight + column * p.terms, column);
}

inline void skinny_product(SkinnyProduct const& p, int64_t begin, int64_t end) {
  switch (p.type) {
    case StoredType::fp32:
      return columns<float>(p, begin, end);
    case StoredType::bf16:
      return columns<BFloat16Bits>(p, begin, end);
    case StoredType::fp16:
      return columns<HalfBits>(p, begin, end);
    case StoredType::int8:
      return columns<int8_t>(p, begin, end);
  }
}

}  // namespace
}  // namespace fsllm::detail
