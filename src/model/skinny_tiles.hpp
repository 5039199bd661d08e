// SPDX-License-Identifier: Apache-2.0
// The loops of skinny products over vectors `Lanes`, which the including file defines for its instruction
// set.
#pragma once
#include <algorithm>

#include "cpu_kernels.hpp"
#include "stored_values.hpp"

namespace fsllm::detail {
namespace {

/// Bytes ahead that are asked for: the weight is read once, and its rows are too short for the processor to
/// see where the next ones lie.
constexpr int64_t kAhead = 16384;

/// Dots of kWeights rows of W with kRows rows of x.
template <int kWeights, int kRows, class T>
inline void tile(SkinnyProduct const& p, T const* weight, int64_t column, int64_t row) {
  Lanes sums[kWeights][kRows];
  for (auto& of_weight : sums)
    for (auto& sum : of_weight) sum = zeros();
  float const* const x = p.x + row * p.terms;
  int64_t i = 0;
  for (; i + kLanes <= p.terms; i += kLanes) {
    Lanes w[kWeights];
    for (int a = 0; a < kWeights; ++a) {
      prefetch(reinterpret_cast<char const*>(weight + a * p.terms + i) + kAhead);
      w[a] = load(weight + a * p.terms + i);
    }
    for (int b = 0; b < kRows; ++b) {
      auto const values = load(x + b * p.terms + i);
      for (int a = 0; a < kWeights; ++a) sums[a][b] = multiply_add(w[a], values, sums[a][b]);
    }
  }
  for (int a = 0; a < kWeights; ++a)
    for (int b = 0; b < kRows; ++b) {
      float sum = total(sums[a][b]);
      for (int64_t rest = i; rest < p.terms; ++rest)
        sum = __builtin_fmaf(value_of(weight[a * p.terms + rest]), x[b * p.terms + rest], sum);
      p.y[(row + b) * p.stride + column + a] = p.scales == nullptr ? sum : sum * p.scales[column + a];
    }
}

/// The dot of one row of W with one row of x in lanes, [0, terms) but for the rest that fills none. One
/// stream of memory, of which a step takes a cache line or more.
template <class T>
inline Lanes dot_lanes(T const* weight, float const* x, int64_t terms) {
  constexpr int kParts = std::max<int>(2, 64 / (kLanes * sizeof(T)));
  Lanes sums[kParts];
  for (auto& sum : sums) sum = zeros();
  int64_t i = 0;
  for (; i + kParts * kLanes <= terms; i += kParts * kLanes) {
    prefetch(reinterpret_cast<char const*>(weight + i) + kAhead);
    for (int part = 0; part < kParts; ++part) {
      int64_t const place = i + part * kLanes;
      sums[part] = multiply_add(load(weight + place), load(x + place), sums[part]);
    }
  }
  for (; i + kLanes <= terms; i += kLanes) sums[0] = multiply_add(load(weight + i), load(x + i), sums[0]);
  for (int part = 1; part < kParts; ++part) sums[0] = add(sums[0], sums[part]);
  return sums[0];
}

template <class T>
inline void columns_of_one_row(SkinnyProduct const& p, T const* weights, int64_t begin, int64_t end) {
  constexpr int64_t kAtOnce = 4;
  int64_t const whole = p.terms / kLanes * kLanes;
  for (int64_t column = begin; column < end; column += kAtOnce) {
    int64_t const count = std::min(kAtOnce, end - column);
    Lanes sums[kAtOnce] = {zeros(), zeros(), zeros(), zeros()};
    for (int64_t a = 0; a < count; ++a) sums[a] = dot_lanes(weights + (column + a) * p.terms, p.x, p.terms);
    float totals[kAtOnce];
    store_totals(sums, totals);
    for (int64_t a = 0; a < count; ++a) {
      for (int64_t i = whole; i < p.terms; ++i)
        totals[a] = __builtin_fmaf(value_of(weights[(column + a) * p.terms + i]), p.x[i], totals[a]);
      p.y[column + a] = p.scales == nullptr ? totals[a] : totals[a] * p.scales[column + a];
    }
  }
}

template <int kWeights, class T>
inline void rows_of_tile(SkinnyProduct const& p, T const* weight, int64_t column) {
  int64_t row = 0;
  for (; row + kTileRows <= p.rows; row += kTileRows) tile<kWeights, kTileRows>(p, weight, column, row);
  for (; row < p.rows; ++row) tile<kWeights, 1>(p, weight, column, row);
}

template <class T>
inline void columns(SkinnyProduct const& p, int64_t begin, int64_t end) {
  auto const* const weight = static_cast<T const*>(p.weight);
  int64_t column = begin;
  if (p.rows == 1) return columns_of_one_row(p, weight, begin, end);
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
