// SPDX-License-Identifier: Apache-2.0
// The blocks of GGUF's quantised types, laid out as in ggml's ggml-common.h. Scales are multiplied in the
// order in which ggml does it, so that values equal those of llama.cpp bit for bit.
#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "fsllm/core/error.hpp"
#include "gguf_header.hpp"

namespace fsllm {
namespace {

constexpr int kSmall = 32, kSuper = 256;

float half_at(uint8_t const* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return c10::Half(bits, c10::Half::from_bits());
}

uint32_t word_at(uint8_t const* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

/// d, then 32 signed bytes.
void block_q8_0(uint8_t const* b, float* y) {
  float const d = half_at(b);
  auto const* q = reinterpret_cast<int8_t const*>(b + 2);
  for (int i = 0; i < kSmall; ++i) y[i] = static_cast<float>(q[i]) * d;
}

/// d, then 32 nibbles from -8 up: first the low halves of 16 bytes, then the high ones.
void block_q4_0(uint8_t const* b, float* y) {
  float const d = half_at(b);
  uint8_t const* q = b + 2;
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>((q[i] & 15) - 8) * d;
    y[i + 16] = static_cast<float>((q[i] >> 4) - 8) * d;
  }
}

/// d, the least value m, then 32 nibbles.
void block_q4_1(uint8_t const* b, float* y) {
  float const d = half_at(b), m = half_at(b + 2);
  uint8_t const* q = b + 4;
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>(q[i] & 15) * d + m;
    y[i + 16] = static_cast<float>(q[i] >> 4) * d + m;
  }
}

/// The fifth bits stand in a word of 32, then 32 nibbles.
void fifth_bits(uint8_t const* high, uint8_t const* q, int32_t* values) {
  uint32_t const bits = word_at(high);
  for (uint32_t i = 0; i < 16; ++i) {
    values[i] = (q[i] & 15) | static_cast<int32_t>((bits >> i & 1) << 4);
    values[i + 16] = (q[i] >> 4) | static_cast<int32_t>((bits >> (i + 16) & 1) << 4);
  }
}

void block_q5_0(uint8_t const* b, float* y) {
  float const d = half_at(b);
  int32_t q[kSmall];
  fifth_bits(b + 2, b + 6, q);
  for (int i = 0; i < kSmall; ++i) y[i] = static_cast<float>(q[i] - 16) * d;
}

void block_q5_1(uint8_t const* b, float* y) {
  float const d = half_at(b), m = half_at(b + 2);
  int32_t q[kSmall];
  fifth_bits(b + 4, b + 8, q);
  for (int i = 0; i < kSmall; ++i) y[i] = static_cast<float>(q[i]) * d + m;
}

/// Scale and minimum, six bits each, of sub-block j in 0 .. 7 of Q4_K and Q5_K (12 bytes for all).
struct SixBits {
  float scale, minimum;
};

SixBits six_bits(uint8_t const* s, int j) {
  int const scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6 << 4);
  int const minimum = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6 << 4);
  return {static_cast<float>(scale), static_cast<float>(minimum)};
}

/// d, dmin, 12 bytes of scales, 128 bytes of nibbles: four times 32 bytes, low halves before high ones.
void block_q4_k(uint8_t const* b, float* y) {
  float const d = half_at(b), dmin = half_at(b + 2);
  uint8_t const *scales = b + 4, *q = b + 16;
  for (int j = 0; j < 8; ++j) {
    auto const [scale, minimum] = six_bits(scales, j);
    float const dj = d * scale, mj = dmin * minimum;
    uint8_t const* const part = q + j / 2 * 32;
    int const shift = j % 2 * 4;
    for (int i = 0; i < 32; ++i) y[32 * j + i] = static_cast<float>(part[i] >> shift & 15) * dj - mj;
  }
}

/// As Q4_K, with 32 bytes of fifth bits before the nibbles; bit j of byte i belongs to sub-block j.
void block_q5_k(uint8_t const* b, float* y) {
  float const d = half_at(b), dmin = half_at(b + 2);
  uint8_t const *scales = b + 4, *high = b + 16, *q = b + 48;
  for (int j = 0; j < 8; ++j) {
    auto const [scale, minimum] = six_bits(scales, j);
    float const dj = d * scale, mj = dmin * minimum;
    uint8_t const* const part = q + j / 2 * 32;
    int const shift = j % 2 * 4;
    for (int i = 0; i < 32; ++i)
      y[32 * j + i] = static_cast<float>((part[i] >> shift & 15) | (high[i] >> j & 1) << 4) * dj - mj;
  }
}

/// 128 bytes of low nibbles, 64 bytes of upper pairs of bits, 16 signed scales, d; two halves of 128 values.
void block_q6_k(uint8_t const* b, float* y) {
  auto const* scales = reinterpret_cast<int8_t const*>(b + 192);
  float const d = half_at(b + 208);
  for (int half = 0; half < 2; ++half) {
    uint8_t const *low = b + 64 * half, *high = b + 128 + 32 * half;
    for (int j = 0; j < 8; ++j) {  // 16 values a scale
      float const dj = d * static_cast<float>(scales[8 * half + j]);
      uint8_t const *l = low + j % 4 * 16, *h = high + j % 2 * 16;
      int const nibble = j / 4 * 4, pair = j / 2 * 2;
      for (int i = 0; i < 16; ++i)
        y[128 * half + 16 * j + i] =
            dj * static_cast<float>(((l[i] >> nibble & 15) | (h[i] >> pair & 3) << 4) - 32);
    }
  }
}

template <void (*Block)(uint8_t const*, float*), int Elements, int Bytes>
void blocks(std::byte const* from, int64_t count, float* to) {
  auto const* bytes = reinterpret_cast<uint8_t const*>(from);
  for (int64_t i = 0; i < count; ++i) Block(bytes + i * Bytes, to + i * Elements);
}

constexpr GgufBlock kBlocks[] = {
    {"F32", 0, 1, 4, nullptr},
    {"F16", 1, 1, 2, nullptr},
    {"Q4_0", 2, kSmall, 18, blocks<block_q4_0, kSmall, 18>},
    {"Q4_1", 3, kSmall, 20, blocks<block_q4_1, kSmall, 20>},
    {"Q5_0", 6, kSmall, 22, blocks<block_q5_0, kSmall, 22>},
    {"Q5_1", 7, kSmall, 24, blocks<block_q5_1, kSmall, 24>},
    {"Q8_0", 8, kSmall, 34, blocks<block_q8_0, kSmall, 34>},
    {"Q8_1", 9, kSmall, 36, nullptr},
    {"Q2_K", 10, kSuper, 84, nullptr},
    {"Q3_K", 11, kSuper, 110, nullptr},
    {"Q4_K", 12, kSuper, 144, blocks<block_q4_k, kSuper, 144>},
    {"Q5_K", 13, kSuper, 176, blocks<block_q5_k, kSuper, 176>},
    {"Q6_K", 14, kSuper, 210, blocks<block_q6_k, kSuper, 210>},
    {"Q8_K", 15, kSuper, 292, nullptr},
    {"IQ2_XXS", 16, kSuper, 66, nullptr},
    {"IQ2_XS", 17, kSuper, 74, nullptr},
    {"IQ3_XXS", 18, kSuper, 98, nullptr},
    {"IQ1_S", 19, kSuper, 50, nullptr},
    {"IQ4_NL", 20, kSmall, 18, nullptr},
    {"IQ3_S", 21, kSuper, 110, nullptr},
    {"IQ2_S", 22, kSuper, 82, nullptr},
    {"IQ4_XS", 23, kSuper, 136, nullptr},
    {"I8", 24, 1, 1, nullptr},
    {"I16", 25, 1, 2, nullptr},
    {"I32", 26, 1, 4, nullptr},
    {"I64", 27, 1, 8, nullptr},
    {"F64", 28, 1, 8, nullptr},
    {"IQ1_M", 29, kSuper, 56, nullptr},
    {"BF16", 30, 1, 2, nullptr},
    {"TQ1_0", 34, kSuper, 54, nullptr},
    {"TQ2_0", 35, kSuper, 66, nullptr},
    {"MXFP4", 39, kSmall, 17, nullptr},
};

}  // namespace

GgufBlock const* find_gguf_block(uint32_t code) {
  auto const* const found = std::find_if(std::begin(kBlocks), std::end(kBlocks),
                                         [&](GgufBlock const& block) { return block.code == code; });
  return found == std::end(kBlocks) ? nullptr : found;
}

GgufBlock const* find_gguf_block(std::string_view name) {
  auto const* const found = std::find_if(std::begin(kBlocks), std::end(kBlocks),
                                         [&](GgufBlock const& block) { return name == block.name; });
  return found == std::end(kBlocks) ? nullptr : found;
}

void dequantize(std::string_view type, std::byte const* data, int64_t count, float* values) {
  auto const* block = find_gguf_block(type);
  FSLLM_CHECK(block != nullptr && block->dequantize != nullptr && count % block->elements == 0,
              "{} elements of type '{}' (no whole blocks of a type that this version reads). Convert the "
              "model to another type.",
              count, type);
  block->dequantize(data, count / block->elements, values);
}

}  // namespace fsllm
