// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/rng.hpp"

#include <cmath>
#include <numbers>

namespace fsllm {
namespace {

/// Finaliser of MurmurHash3 (Appleby): spreads every input bit over the word.
uint64_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  x ^= x >> 33;
  return x;
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    uint64_t const p0 = uint64_t{kPhiloxMultipliers[0]} * counter[0];
    uint64_t const p1 = uint64_t{kPhiloxMultipliers[1]} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += kPhiloxSteps[0];
    key[1] += kPhiloxSteps[1];
  }
  return counter;
}

Philox::Philox(uint64_t seed, Purpose purpose, uint64_t client, uint64_t round, uint64_t step) {
  // (seed, purpose, client) make the key; (round, step) and the position make the counter.
  uint64_t const key = mix(mix(mix(seed) + static_cast<uint64_t>(purpose)) + client);
  uint64_t const stream = mix(mix(round) + step);
  key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  counter_ = {0, 0, static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)};
}

uint32_t Philox::next_u32() {
  if (used_ == 4) {
    block_ = philox4x32(counter_, key_);
    if (++counter_[0] == 0) ++counter_[1];
    used_ = 0;
  }
  return block_[static_cast<size_t>(used_++)];
}

uint64_t Philox::next_u64() {
  uint64_t const low = next_u32();
  return low | static_cast<uint64_t>(next_u32()) << 32;
}

double Philox::uniform() {
  return static_cast<double>(next_u64() >> 11) * 0x1.0p-53;
}

uint64_t Philox::below(uint64_t bound) {
  uint64_t const limit = UINT64_MAX - UINT64_MAX % bound;
  uint64_t value = next_u64();
  while (value >= limit) value = next_u64();
  return value % bound;
}

double Philox::normal() {
  double const radius = std::sqrt(-2 * std::log(1 - uniform()));
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

double Philox::gamma(double shape) {
  if (shape < 1) {
    // Marsaglia & Tsang, section 6: Gamma(a) = Gamma(a + 1) U^(1/a).
    double const boosted = gamma(shape + 1);
    return boosted * std::pow(1 - uniform(), 1 / shape);
  }
  double const d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    double const x = normal(), t = 1 + c * x, v = t * t * t;
    if (t <= 0) continue;
    if (std::log(1 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

uint64_t derive_seed(uint64_t seed, Purpose purpose, uint64_t client, uint64_t round, uint64_t step) {
  return Philox(seed, purpose, client, round, step).next_u64();
}

uint64_t hash_of(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (char const c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return mix(hash);
}

}  // namespace fsllm
