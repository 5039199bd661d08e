// SPDX-License-Identifier: Apache-2.0
// Element-wise loops over vectors `Lanes`, which the including file defines for its instruction set.
#pragma once
#include "attention_tiles.hpp"
#include "cpu_kernels.hpp"
#include "stored_values.hpp"

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

template <class T>
inline void rms_norm_of(RmsRows const& rows, int64_t begin, int64_t end) {
  int64_t const size = rows.size;
  for (int64_t row = begin; row < end; ++row) {
    auto const* const x = static_cast<T const*>(rows.x) + row * size;
    auto* const y = static_cast<T*>(rows.y) + row * size;
    float const squares = sum_of_row(
        size, [&](int64_t i) { return multiply(load(x + i), load(x + i)); },
        [&](int64_t i) { return value_of(x[i]) * value_of(x[i]); });
    float const inverse = 1 / __builtin_sqrtf(squares / static_cast<float>(size) + rows.eps);
    if (rows.inverse != nullptr) rows.inverse[row] = inverse;
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes)
      store(y + i, multiply(multiply(load(x + i), all(inverse)), load(rows.weight + i)));
    for (; i < size; ++i) put(y + i, value_of(x[i]) * inverse * rows.weight[i]);
  }
}

/// With n = x·inverse: dx = (g·w − n·mean(g·w·n)) · inverse.
template <class T>
inline void rms_norm_backward_of(RmsRows const& rows, int64_t begin, int64_t end) {
  int64_t const size = rows.size;
  for (int64_t row = begin; row < end; ++row) {
    auto const *const x = static_cast<T const*>(rows.x) + row * size, *const grad =
                                                                          static_cast<T const*>(rows.grad) +
                                                                          row * size;
    auto* const y = static_cast<T*>(rows.y) + row * size;
    float const inverse = rows.inverse[row];
    float const along = sum_of_row(
        size,
        [&](int64_t i) { return multiply(multiply(load(grad + i), load(rows.weight + i)), load(x + i)); },
        [&](int64_t i) { return value_of(grad[i]) * rows.weight[i] * value_of(x[i]); });
    float const back = -along / static_cast<float>(size) * inverse * inverse * inverse;
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      auto const scaled = multiply(multiply(load(grad + i), load(rows.weight + i)), all(inverse));
      store(y + i, multiply_add(load(x + i), all(back), scaled));
    }
    for (; i < size; ++i) put(y + i, value_of(grad[i]) * rows.weight[i] * inverse + value_of(x[i]) * back);
  }
}

template <class T>
inline void rotate_halves(T const* x, T const* cos, T const* sin, int64_t pairs, float sign, T* y) {
  int64_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    auto const x1 = load(x + i), x2 = load(x + pairs + i), c = load(cos + i);
    auto const s = multiply(load(sin + i), all(sign));
    store(y + i, multiply_add(multiply(x2, all(-1)), s, multiply(x1, c)));
    store(y + pairs + i, multiply_add(x1, s, multiply(x2, c)));
  }
  for (; i < pairs; ++i) {
    float const x1 = value_of(x[i]), x2 = value_of(x[pairs + i]), c = value_of(cos[i]),
                s = sign * value_of(sin[i]);
    put(y + i, x1 * c - x2 * s);
    put(y + pairs + i, x2 * c + x1 * s);
  }
}

template <class T>
inline void rotate_neighbours(T const* x, T const* cos, T const* sin, int64_t pairs, float sign, T* y) {
  for (int64_t i = 0; i < pairs; ++i) {
    float const x1 = value_of(x[2 * i]), x2 = value_of(x[2 * i + 1]), c = value_of(cos[i]),
                s = sign * value_of(sin[i]);
    put(y + 2 * i, x1 * c - x2 * s);
    put(y + 2 * i + 1, x2 * c + x1 * s);
  }
}

template <class T>
inline void rotate_of(Rotation const& r, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token)
    for (int64_t head = 0; head < r.heads; ++head) {
      auto const* const x = static_cast<T const*>(r.x) + token * r.token_stride + head * r.head_stride;
      auto* const y = static_cast<T*>(r.y) + (token * r.heads + head) * r.dim;
      auto const *const cos = static_cast<T const*>(r.cos) + token * r.pairs, *const sin =
                                                                                  static_cast<T const*>(
                                                                                      r.sin) +
                                                                                  token * r.pairs;
      (r.neighbours ? rotate_neighbours<T> : rotate_halves<T>)(x, cos, sin, r.pairs, r.sign, y);
      for (int64_t i = 2 * r.pairs; i < r.dim; ++i) y[i] = x[i];
    }
}

/// The largest negated gate whose exponential is a number.
constexpr float kMostExponent = 87;

inline Lanes sigmoid_of(Lanes x) {
  auto const negated = smallest(all(kMostExponent), multiply(x, all(-1)));
  return divide(all(1), add(all(1), exp_of(negated)));
}
inline float sigmoid_of(float x) {
  return 1 / (1 + __builtin_expf(-x < kMostExponent ? -x : kMostExponent));
}

template <class T>
inline void swiglu_of(GatedRows const& rows, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    auto const *const gate = static_cast<T const*>(rows.gate) + row * rows.gate_stride,
                      *const up = static_cast<T const*>(rows.up) + row * rows.up_stride;
    auto* const y = static_cast<T*>(rows.y) + row * rows.size;
    int64_t i = 0;
    for (; i + kLanes <= rows.size; i += kLanes) {
      auto const g = load(gate + i);
      store(y + i, multiply(multiply(g, sigmoid_of(g)), load(up + i)));
    }
    for (; i < rows.size; ++i)
      put(y + i, value_of(gate[i]) * sigmoid_of(value_of(gate[i])) * value_of(up[i]));
  }
}

/// With s = sigmoid(gate): d up = g · gate · s and d gate = g · up · s · (1 + gate · (1 − s)).
template <class T>
inline void swiglu_backward_of(GatedRows const& rows, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    auto const *const gate = static_cast<T const*>(rows.gate) + row * rows.gate_stride,
                      *const up = static_cast<T const*>(rows.up) + row * rows.up_stride,
                      *const grad = static_cast<T const*>(rows.grad) + row * rows.size;
    auto *const to_gate = static_cast<T*>(rows.y) + row * rows.size, *const to_up =
                                                                         static_cast<T*>(rows.grad_up) +
                                                                         row * rows.size;
    int64_t i = 0;
    for (; i + kLanes <= rows.size; i += kLanes) {
      auto const x = load(gate + i), s = sigmoid_of(x), g = multiply(load(grad + i), s);
      store(to_up + i, multiply(g, x));
      auto const slope = multiply_add(x, add(all(1), multiply(s, all(-1))), all(1));
      store(to_gate + i, multiply(multiply(g, load(up + i)), slope));
    }
    for (; i < rows.size; ++i) {
      float const x = value_of(gate[i]), s = sigmoid_of(x), g = value_of(grad[i]) * s;
      put(to_up + i, g * x);
      put(to_gate + i, g * value_of(up[i]) * (1 + x * (1 - s)));
    }
  }
}

inline void rms_norm(RmsRows const& rows, int64_t begin, int64_t end) {
  with_type(rows.type, [&]<class T>(T*) { rms_norm_of<T>(rows, begin, end); });
}
inline void rms_norm_backward(RmsRows const& rows, int64_t begin, int64_t end) {
  with_type(rows.type, [&]<class T>(T*) { rms_norm_backward_of<T>(rows, begin, end); });
}
inline void rotate(Rotation const& rows, int64_t begin, int64_t end) {
  with_type(rows.type, [&]<class T>(T*) { rotate_of<T>(rows, begin, end); });
}
inline void swiglu(GatedRows const& rows, int64_t begin, int64_t end) {
  with_type(rows.type, [&]<class T>(T*) { swiglu_of<T>(rows, begin, end); });
}
inline void swiglu_backward(GatedRows const& rows, int64_t begin, int64_t end) {
  with_type(rows.type, [&]<class T>(T*) { swiglu_backward_of<T>(rows, begin, end); });
}

}  // namespace
}  // namespace fsllm::detail
