// SPDX-License-Identifier: Apache-2.0
// Compiled for AVX-512; called where the processor has it.
#include "cpu_kernels.hpp"

#ifdef __AVX512F__
#include <immintrin.h>

namespace fsllm::detail {
namespace {

using Lanes = __m512;
constexpr int64_t kLanes = 16;
constexpr int kTileWeights = 4, kTileRows = 4;

inline float half_value(uint16_t bits) {
  return _cvtsh_ss(bits);
}
inline Lanes zeros() {
  return _mm512_setzero_ps();
}
inline Lanes all(float x) {
  return _mm512_set1_ps(x);
}
inline void store(float* to, Lanes x) {
  _mm512_storeu_ps(to, x);
}
inline Lanes multiply(Lanes a, Lanes b) {
  return _mm512_mul_ps(a, b);
}
inline Lanes largest(Lanes a, Lanes b) {
  return _mm512_max_ps(a, b);
}
inline Lanes smallest(Lanes a, Lanes b) {
  return _mm512_min_ps(a, b);
}
inline Lanes divide(Lanes a, Lanes b) {
  return _mm512_div_ps(a, b);
}
inline Lanes rounded(Lanes x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Lanes times_power_of_two(Lanes x, Lanes n) {
  return _mm512_scalef_ps(x, n);
}
inline Lanes multiply_add(Lanes a, Lanes b, Lanes sum) {
  return _mm512_fmadd_ps(a, b, sum);
}
inline Lanes add(Lanes a, Lanes b) {
  return _mm512_add_ps(a, b);
}
inline void prefetch(char const* from) {
  _mm_prefetch(from, _MM_HINT_T0);
}
inline float total(Lanes x) {
  return _mm512_reduce_add_ps(x);
}
/// The totals of four vectors.
inline void store_totals(Lanes const (&x)[4], float* to) {
  auto const ab = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
  auto const cd = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
  auto const low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  auto const high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  auto const all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  auto const half = _mm256_add_ps(_mm512_castps512_ps256(all),
                                  _mm512_castps512_ps256(_mm512_shuffle_f32x4(all, all, 0xEE)));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
inline Lanes load(float const* from) {
  return _mm512_loadu_ps(from);
}
inline Lanes load(int8_t const* from) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from))));
}
struct BFloat16Bits {
  uint16_t bits;
};
struct HalfBits {
  uint16_t bits;
};
inline Lanes load(BFloat16Bits const* from) {
  auto const bits = _mm256_loadu_si256(reinterpret_cast<__m256i const*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline Lanes load(HalfBits const* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(from)));
}
/// To the nearest, ties to even; NaN stays one.
inline void store(BFloat16Bits* to, Lanes x) {
  auto const bits = _mm512_castps_si512(x);
  auto const odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  auto const near = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  auto const high = _mm512_mask_mov_epi32(_mm512_srli_epi32(near, 16), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                                          _mm512_set1_epi32(0x7FC0));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(high));
}
inline void store(HalfBits* to, Lanes x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

}  // namespace
}  // namespace fsllm::detail

#include "attention_tiles.hpp"
#include "causal_tiles.hpp"
#include "product_tiles.hpp"
#include "row_tiles.hpp"
#include "skinny_tiles.hpp"

namespace fsllm::detail {

CpuKernels const kAvx512Kernels{skinny_product, thin_product, one_query,       rms_norm, rms_norm_backward,
                                rotate,         swiglu,       swiglu_backward, causal,   causal_backward};

}  // namespace fsllm::detail
#endif
