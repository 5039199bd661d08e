// SPDX-License-Identifier: Apache-2.0
// Element-wise loops over vectors `Lanes`, which the including file defines for its instruction set.
#pragma once
#include "attention_tiles.hpp"
#include "cpu_kernels.hpp"

namespace fsllm::detail {
namespace {

/// Sums of one row kept side by side: an addition waits for the one before it.
constexpr int kRowSums = 4;

/// Σ f(i) over a row: `lanes(i)` for kLanes terms from i on, `one(i)` for one.
template <class OfLanes, class OfOne>
inline float sum_of_row(int64_t size, OfLanes const& lanes, OfOne const& one) {
  Lanes sums[kRowSums];
  for (auto& sum : sums) sum = zeros();
  int64_t i = 0;
  for (; i + kRowSums * kLanes <= size; i += kRowSums * kLanes)
    for (int part = 0; part < kRowSums; ++part) sums[part] = add(sums[part], lanes(i + part * kLanes));
  for (; i + kLanes <= size; i += kLanes) sums[0] = add(sums[0], lanes(i));
  float result = total(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
  for (; i < size; ++i) result += one(i);
  return result;
}

inline void rms_norm(RmsRows const& rows, int64_t begin, int64_t end) {
  int64_t const size = rows.size;
  for (int64_t row = begin; row < end; ++row) {
    auto const* const x = rows.x + row * size;
    auto* const y = rows.y + row * size;
    float const squares = sum_of_row(
        size, [&](int64_t i) { return multiply(load(x + i), load(x + i)); },
        [&](int64_t i) { return x[i] * x[i]; });
    float const inverse = 1 / __builtin_sqrtf(squares / static_cast<float>(size) + rows.eps);
    if (rows.inverse != nullptr) rows.inverse[row] = inverse;
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes)
      store(y + i, multiply(multiply(load(x + i), all(inverse)), load(rows.weight + i)));
    for (; i < size; ++i) y[i] = x[i] * inverse * rows.weight[i];
  }
}

/// With n = x·inverse: dx = (g·w − n·mean(g·w·n)) · inverse.
inline void rms_norm_backward(RmsRows const& rows, int64_t begin, int64_t end) {
  int64_t const size = rows.size;
  for (int64_t row = begin; row < end; ++row) {
    auto const *const x = rows.x + row * size, *const grad = rows.grad + row * size;
    auto* const y = rows.y + row * size;
    float const inverse = rows.inverse[row];
    float const along = sum_of_row(
        size,
        [&](int64_t i) { return multiply(multiply(load(grad + i), load(rows.weight + i)), load(x + i)); },
        [&](int64_t i) { return grad[i] * rows.weight[i] * x[i]; });
    float const back = -along / static_cast<float>(size) * inverse * inverse * inverse;
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      auto const scaled = multiply(multiply(load(grad + i), load(rows.weight + i)), all(inverse));
      store(y + i, multiply_add(load(x + i), all(back), scaled));
    }
    for (; i < size; ++i) y[i] = grad[i] * rows.weight[i] * inverse + x[i] * back;
  }
}

inline void rotate_halves(float const* x, float const* cos, float const* sin, int64_t pairs, float sign,
                          float* y) {
  int64_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    auto const x1 = load(x + i), x2 = load(x + pairs + i), c = load(cos + i);
    auto const s = multiply(load(sin + i), all(sign));
    store(y + i, multiply_add(multiply(x2, all(-1)), s, multiply(x1, c)));
    store(y + pairs + i, multiply_add(x1, s, multiply(x2, c)));
  }
  for (; i < pairs; ++i) {
    float const x1 = x[i], x2 = x[pairs + i], s = sign * sin[i];
    y[i] = x1 * cos[i] - x2 * s;
    y[pairs + i] = x2 * cos[i] + x1 * s;
  }
}

inline void rotate_neighbours(float const* x, float const* cos, float const* sin, int64_t pairs, float sign,
                              float* y) {
  for (int64_t i = 0; i < pairs; ++i) {
    float const x1 = x[2 * i], x2 = x[2 * i + 1], s = sign * sin[i];
    y[2 * i] = x1 * cos[i] - x2 * s;
    y[2 * i + 1] = x2 * cos[i] + x1 * s;
  }
}

inline void rotate(Rotation const& r, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token)
    for (int64_t head = 0; head < r.heads; ++head) {
      auto const* const x = r.x + token * r.token_stride + head * r.head_stride;
      auto* const y = r.y + (token * r.heads + head) * r.dim;
      auto const *const cos = r.cos + token * r.pairs, *const sin = r.sin + token * r.pairs;
      (r.neighbours ? rotate_neighbours : rotate_halves)(x, cos, sin, r.pairs, r.sign, y);
      for (int64_t i = 2 * r.pairs; i < r.dim; ++i) y[i] = x[i];
    }
}

/// The largest negated gate whose exponential is a number.
constexpr float kMostExponent = 87;

inline Lanes sigmoid_of(Lanes x) {
  auto const negated = smallest(multiply(x, all(-1)), all(kMostExponent));
  return divide(all(1), add(all(1), exp_of(negated)));
}
inline float sigmoid_of(float x) {
  return 1 / (1 + __builtin_expf(-x < kMostExponent ? -x : kMostExponent));
}

inline void swiglu(GatedRows const& rows, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    auto const *const gate = rows.gate + row * rows.gate_stride, *const up = rows.up + row * rows.up_stride;
    auto* const y = rows.y + row * rows.size;
    int64_t i = 0;
    for (; i + kLanes <= rows.size; i += kLanes) {
      auto const g = load(gate + i);
      store(y + i, multiply(multiply(g, sigmoid_of(g)), load(up + i)));
    }
    for (; i < rows.size; ++i) y[i] = gate[i] * sigmoid_of(gate[i]) * up[i];
  }
}

/// With s = sigmoid(gate): d up = g · gate · s and d gate = g · up · s · (1 + gate · (1 − s)).
inline void swiglu_backward(GatedRows const& rows, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    auto const *const gate = rows.gate + row * rows.gate_stride, *const up = rows.up + row * rows.up_stride;
    auto const* const grad = rows.grad + row * rows.size;
    auto *const to_gate = rows.y + row * rows.size, *const to_up = rows.grad_up + row * rows.size;
    int64_t i = 0;
    for (; i + kLanes <= rows.size; i += kLanes) {
      auto const x = load(gate + i), s = sigmoid_of(x), g = multiply(load(grad + i), s);
      store(to_up + i, multiply(g, x));
      auto const slope = multiply_add(x, add(all(1), multiply(s, all(-1))), all(1));
      store(to_gate + i, multiply(multiply(g, load(up + i)), slope));
    }
    for (; i < rows.size; ++i) {
      float const s = sigmoid_of(gate[i]), g = grad[i] * s;
      to_up[i] = g * gate[i];
      to_gate[i] = g * up[i] * (1 + gate[i] * (1 - s));
    }
  }
}

}  // namespace
}  // namespace fsllm::detail
