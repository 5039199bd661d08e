// SPDX-License-Identifier: Apache-2.0
// The loops of attention over vectors `Lanes`, which the including file defines for its instruction set.
#pragma once
#include <initializer_list>

#include "cpu_kernels.hpp"

namespace fsllm::detail {
namespace {

/// e^x for x <= 0, to 1e-7 of it: 2^n times a polynomial of the rest (Cephes, expf). NaN stays NaN, for where
/// one is compared largest() and smallest() give their second argument.
inline Lanes exp_of(Lanes x) {
  x = largest(all(-87.0F), x);
  auto const n = rounded(multiply(x, all(1.44269504F)));
  auto const r = multiply_add(n, all(2.12194440e-4F), multiply_add(n, all(-0.693359375F), x));
  auto p = all(1.9875691500e-4F);
  for (float const c :
       {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 5.0000001201e-1F})
    p = multiply_add(p, r, all(c));
  return times_power_of_two(multiply_add(multiply(r, r), p, add(r, all(1))), n);
}

/// q · k of four tokens, `stride` apart.
inline void four_dots(float const* q, float const* keys, int64_t stride, int64_t dim, float* to) {
  Lanes sums[4] = {zeros(), zeros(), zeros(), zeros()};
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    auto const part = load(q + i);
    for (int token = 0; token < 4; ++token)
      sums[token] = multiply_add(part, load(keys + token * stride + i), sums[token]);
  }
  store_totals(sums, to);
  for (; i < dim; ++i)
    for (int token = 0; token < 4; ++token) to[token] += q[i] * keys[token * stride + i];
}

inline float dot(float const* a, float const* b, int64_t count) {
  auto sum = zeros();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum = multiply_add(load(a + i), load(b + i), sum);
  float result = i > 0 ? total(sum) : 0;
  for (; i < count; ++i) result += a[i] * b[i];
  return result;
}

inline void dots(OneQuery const& one, float const* q, float const* keys) {
  int64_t const stride = one.kv_heads * one.dim;
  int64_t s = 0;
  for (; s + 4 <= one.tokens; s += 4) four_dots(q, keys + s * stride, stride, one.dim, one.weights + s);
  for (; s < one.tokens; ++s) one.weights[s] = dot(q, keys + s * stride, one.dim);
}

/// weights − most, then e to that; their sum.
inline float exponentials(float* weights, int64_t count, float most) {
  auto sum = zeros();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    auto const e = exp_of(add(load(weights + i), all(-most)));
    store(weights + i, e);
    sum = add(sum, e);
  }
  float result = total(sum);
  for (; i < count; ++i) result += weights[i] = __builtin_expf(weights[i] - most);
  return result;
}

inline void weighted_sum(OneQuery const& one, float const* values, float inverse, float* out) {
  int64_t const stride = one.kv_heads * one.dim;
  constexpr int kSums = 4;  // an addition waits for the one before it
  int64_t d = 0;
  for (; d + kSums * kLanes <= one.dim; d += kSums * kLanes) {
    Lanes sums[kSums] = {zeros(), zeros(), zeros(), zeros()};
    for (int64_t s = 0; s < one.tokens; ++s) {
      auto const weight = all(one.weights[s]);
      for (int i = 0; i < kSums; ++i)
        sums[i] = multiply_add(weight, load(values + s * stride + d + i * kLanes), sums[i]);
    }
    for (int i = 0; i < kSums; ++i) store(out + d + i * kLanes, multiply(sums[i], all(inverse)));
  }
  for (; d + kLanes <= one.dim; d += kLanes) {
    auto sum = zeros();
    for (int64_t s = 0; s < one.tokens; ++s)
      sum = multiply_add(all(one.weights[s]), load(values + s * stride + d), sum);
    store(out + d, multiply(sum, all(inverse)));
  }
  for (; d < one.dim; ++d) {
    float sum = 0;
    for (int64_t s = 0; s < one.tokens; ++s) sum += one.weights[s] * values[s * stride + d];
    out[d] = sum * inverse;
  }
}

inline void one_query(OneQuery const& one) {
  int64_t const group = one.heads / one.kv_heads;
  for (int64_t head = 0; head < one.heads; ++head) {
    auto const* const q = one.q + head * one.dim;
    auto const* const keys = one.keys + head / group * one.dim;
    float const slope = one.slopes == nullptr ? 0 : one.slopes[head];
    float most = -3e38F;
    dots(one, q, keys);
    for (int64_t s = 0; s < one.tokens; ++s) {
      float score = one.scale * one.weights[s];
      if (one.softcap > 0) score = one.softcap * __builtin_tanhf(score / one.softcap);
      score += slope * static_cast<float>(s + 1 - one.tokens);
      one.weights[s] = score;
      most = score > most ? score : most;
    }
    float const sum = exponentials(one.weights, one.tokens, most);
    weighted_sum(one, one.values + head / group * one.dim, 1 / sum, one.out + head * one.dim);
  }
}

}  // namespace
}  // namespace fsllm::detail
