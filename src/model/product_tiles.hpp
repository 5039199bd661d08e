// SPDX-License-Identifier: Apache-2.0
// Small matrix products over vectors `Lanes`, which the including file defines for its instruction set.
#pragma once
#include "cpu_kernels.hpp"
#include "stored_values.hpp"

namespace fsllm::detail {
namespace {

/// Results that registers hold at a time: kTileQueries rows of kTileColumns vectors.
constexpr int kTileQueries = 6, kTileColumns = kLanes == 16 ? 4 : 2;
constexpr int64_t kPanel = kTileColumns * kLanes;

/// Element (i, k) of a left operand lies at data[i · row + k · term].
struct Left {
  float const* data;
  int64_t row, term;
};

/// c [R, C vectors] (+)= a [R, terms] · b [terms, C vectors], summed as floats.
template <int R, int C, bool Adds, class Right, class To>
inline void product_tile(Left a, Right const* b, int64_t b_row, int64_t terms, To* c, int64_t c_row) {
  Lanes sums[R][C];
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < C; ++i) sums[r][i] = Adds ? load(c + r * c_row + i * kLanes) : zeros();
  for (int64_t k = 0; k < terms; ++k) {
    Lanes of_b[C];
    for (int i = 0; i < C; ++i) of_b[i] = load(b + k * b_row + i * kLanes);
    for (int r = 0; r < R; ++r) {
      auto const of_a = all(a.data[r * a.row + k * a.term]);
      for (int i = 0; i < C; ++i) sums[r][i] = multiply_add(of_a, of_b[i], sums[r][i]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < C; ++i) store(c + r * c_row + i * kLanes, sums[r][i]);
}

template <int C, bool Adds, class Right, class To>
inline void column_of_tiles(int64_t rows, Left a, Right const* b, int64_t b_row, int64_t terms, To* c,
                            int64_t c_row) {
  for (; rows >= kTileQueries; rows -= kTileQueries) {
    product_tile<kTileQueries, C, Adds>(a, b, b_row, terms, c, c_row);
    a.data += kTileQueries * a.row;
    c += kTileQueries * c_row;
  }
  switch (rows) {
    case 5:
      return product_tile<5, C, Adds>(a, b, b_row, terms, c, c_row);
    case 4:
      return product_tile<4, C, Adds>(a, b, b_row, terms, c, c_row);
    case 3:
      return product_tile<3, C, Adds>(a, b, b_row, terms, c, c_row);
    case 2:
      return product_tile<2, C, Adds>(a, b, b_row, terms, c, c_row);
    case 1:
      return product_tile<1, C, Adds>(a, b, b_row, terms, c, c_row);
    default:
      return;
  }
}

/// c [rows, vectors] (+)= a [rows, terms] · b [terms, vectors], whose columns stand `b_column` values behind
/// one another every kPanel of them (kPanel: in one row).
template <bool Adds, class Right, class To>
inline void tiled_product(int64_t rows, int64_t vectors, int64_t terms, Left a, Right const* b, int64_t b_row,
                          int64_t b_column, To* c, int64_t c_row) {
  for (; vectors > 0; vectors -= kTileColumns, b += b_column, c += kPanel) {
    switch (vectors) {
      case 1:
        column_of_tiles<1, Adds>(rows, a, b, b_row, terms, c, c_row);
        break;
      case 2:
        column_of_tiles<2, Adds>(rows, a, b, b_row, terms, c, c_row);
        break;
      case 3:
        column_of_tiles < kTileColumns<3 ? kTileColumns : 3, Adds>(rows, a, b, b_row, terms, c, c_row);
        break;
      default:
        column_of_tiles<kTileColumns, Adds>(rows, a, b, b_row, terms, c, c_row);
    }
  }
}

/// The columns of a product that fill no vector.
template <class Right, class To>
inline void rest_of_product(ThinProduct const& p, int64_t begin, int64_t end) {
  for (int64_t row = 0; row < p.rows; ++row)
    for (int64_t column = begin; column < end; ++column) {
      auto* const to = static_cast<To*>(p.out) + row * p.out_row + column;
      float sum = p.adds ? value_of(*to) : 0;
      for (int64_t k = 0; k < p.terms; ++k)
        sum = __builtin_fmaf(p.left[row * p.left_row + k * p.left_term],
                             value_of(static_cast<Right const*>(p.right)[k * p.right_row + column]), sum);
      put(to, sum);
    }
}

template <class Right, class To>
inline void thin_columns(ThinProduct const& p, int64_t begin, int64_t end) {
  int64_t const vectors = (end - begin) / kLanes, rest = begin + vectors * kLanes;
  (p.adds ? tiled_product<true, Right, To>
          : tiled_product<false, Right, To>)(p.rows, vectors, p.terms, {p.left, p.left_row, p.left_term},
                                             static_cast<Right const*>(p.right) + begin, p.right_row, kPanel,
                                             static_cast<To*>(p.out) + begin, p.out_row);
  rest_of_product<Right, To>(p, rest, end);
}

inline void thin_product(ThinProduct const& p, int64_t begin, int64_t end) {
  if (p.right_type == StoredType::fp32)
    with_type(p.out_type, [&]<class To>(To*) { thin_columns<float, To>(p, begin, end); });
  else
    with_type(p.right_type, [&]<class Right>(Right*) { thin_columns<Right, float>(p, begin, end); });
}

}  // namespace
}  // namespace fsllm::detail
