// SPDX-License-Identifier: Apache-2.0
// Compiled for AVX2; called where the processor has it.
#include "cpu_kernels.hpp"

#ifdef __AVX2__
#include <immintrin.h>

namespace fsllm::detail {
namespace {

using Lanes = __m256;
constexpr int64_t kLanes = 8;
constexpr int kTileWeights = 4, kTileRows = 2;

inline float half_value(uint16_t bits) {
  return _cvtsh_ss(bits);
}
inline Lanes zeros() {
  return _mm256_setzero_ps();
}
inline Lanes all(float x) {
  return _mm256_set1_ps(x);
}
inline void store(float* to, Lanes x) {
  _mm256_storeu_ps(to, x);
}
inline Lanes multiply(Lanes a, Lanes b) {
  return _mm256_mul_ps(a, b);
}
inline Lanes largest(Lanes a, Lanes b) {
  return _mm256_max_ps(a, b);
}
inline Lanes smallest(Lanes a, Lanes b) {
  return _mm256_min_ps(a, b);
}
inline Lanes divide(Lanes a, Lanes b) {
  return _mm256_div_ps(a, b);
}
inline Lanes rounded(Lanes x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Lanes times_power_of_two(Lanes x, Lanes n) {
  return _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}
inline Lanes multiply_add(Lanes a, Lanes b, Lanes sum) {
  return _mm256_fmadd_ps(a, b, sum);
}
inline Lanes add(Lanes a, Lanes b) {
  return _mm256_add_ps(a, b);
}
inline void prefetch(char const* from) {
  _mm_prefetch(from, _MM_HINT_T0);
}
inline float total(Lanes x) {
  auto const halves = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  auto const quarters = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
  return _mm_cvtss_f32(_mm_add_ss(quarters, _mm_movehdup_ps(quarters)));
}
/// The totals of four vectors.
inline void store_totals(Lanes const (&x)[4], float* to) {
  auto const all = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
inline Lanes load(float const* from) {
  return _mm256_loadu_ps(from);
}
inline Lanes load(int8_t const* from) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(from))));
}
struct BFloat16Bits {
  uint16_t bits;
};
struct HalfBits {
  uint16_t bits;
};
inline Lanes load(BFloat16Bits const* from) {
  auto const bits = _mm_loadu_si128(reinterpret_cast<__m128i const*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Lanes load(HalfBits const* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from)));
}
/// To the nearest, ties to even; NaN stays one.
inline void store(BFloat16Bits* to, Lanes x) {
  auto const bits = _mm256_castps_si256(x);
  auto const odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  auto const near = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  auto const number = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_ORD_Q));
  auto const high = _mm256_blendv_epi8(_mm256_set1_epi32(0x7FC0), _mm256_srli_epi32(near, 16), number);
  auto const pairs = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(pairs));
}
inline void store(HalfBits* to, Lanes x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

}  // namespace
}  // namespace fsllm::detail

#include "attention_tiles.hpp"
#include "causal_tiles.hpp"
#include "product_tiles.hpp"
#include "row_tiles.hpp"
#include "skinny_tiles.hpp"

namespace fsllm::detail {

CpuKernels const kAvx2Kernels{skinny_product, thin_product, one_query,       rms_norm, rms_norm_backward,
                              rotate,         swiglu,       swiglu_backward, causal,   causal_backward};

}  // namespace fsllm::detail
#endif
