// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace fsllm {

/// What a stream of random numbers is for. The values are part of the reproducibility contract: append only.
enum class Purpose : uint32_t {
  data_split = 1,
  client_split = 2,
  sample_clients = 3,
  batch_order = 4,
  dropout = 5,
  adapter_init = 6,
  generation = 7,
  subsample = 8,
  test = 9,
  unseen_clients = 10,
  sketch = 11,
  perturbation = 12,
  settings_search = 13,
};

/// What Philox4x32 multiplies counters by, and what it adds to the key, in each of its ten rounds.
inline constexpr std::array<uint32_t, 2> kPhiloxMultipliers{0xD2511F53, 0xCD9E8D57};
inline constexpr std::array<uint32_t, 2> kPhiloxSteps{0x9E3779B9, 0xBB67AE85};
inline constexpr int kPhiloxRounds = 10;

/// One block of Philox4x32-10, the raw function.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// Counter-based generator Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
/// The key comes from (seed, purpose, client), the counter holds (round, step) and the position, so any
/// stream can be made anywhere, on any rank, without state. All distributions are ours: the same bits on
/// every platform.
class Philox {
 public:
  Philox(uint64_t seed, Purpose purpose, uint64_t client = 0, uint64_t round = 0, uint64_t step = 0);

  uint32_t next_u32();
  uint64_t next_u64();
  /// Uniform in [0, 1) with 53 bits.
  double uniform();
  /// Uniform integer in [0, bound), bound > 0, without modulo bias.
  uint64_t below(uint64_t bound);
  /// Standard normal (Box–Muller).
  double normal();
  /// Gamma(shape, 1), shape > 0 (Marsaglia & Tsang 2000).
  double gamma(double shape);

  /// Fisher–Yates.
  template <class T>
  void shuffle(std::span<T> values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

/// One 64-bit seed of the stream (seed, purpose, client, round, step), for generators that want a seed.
uint64_t derive_seed(uint64_t seed, Purpose purpose, uint64_t client = 0, uint64_t round = 0,
                     uint64_t step = 0);

/// 64 bits of a name, the same on every platform (FNV-1a, then MurmurHash3's finaliser).
uint64_t hash_of(std::string_view name);

}  // namespace fsllm
