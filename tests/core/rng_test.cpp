// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/rng.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

namespace fsllm {
namespace {

using Block = std::array<uint32_t, 4>;

/// Known answers of Random123 (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, SameNamesGiveTheSameStream) {
  Philox a(7, Purpose::test, 1, 2, 3), b(7, Purpose::test, 1, 2, 3);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(a.next_u32(), b.next_u32());
}

TEST(Philox, EveryPartOfTheNameMatters) {
  std::set<uint64_t> firsts;
  for (auto const purpose : {Purpose::test, Purpose::dropout})
    for (uint64_t seed = 0; seed < 4; ++seed)
      for (uint64_t client = 0; client < 4; ++client)
        for (uint64_t round = 0; round < 4; ++round)
          for (uint64_t step = 0; step < 4; ++step)
            firsts.insert(Philox(seed, purpose, client, round, step).next_u64());
  EXPECT_EQ(firsts.size(), 2u * 4 * 4 * 4 * 4);
}

TEST(Philox, LargeNamesDiffer) {
  uint64_t const big = uint64_t{1} << 40;
  EXPECT_NE(derive_seed(big, Purpose::test), derive_seed(0, Purpose::test));
  EXPECT_NE(derive_seed(0, Purpose::test, big), derive_seed(0, Purpose::test, 0));
  EXPECT_NE(derive_seed(0, Purpose::test, 0, big), derive_seed(0, Purpose::test, 0, 0));
  EXPECT_NE(derive_seed(0, Purpose::test, 0, 0, big), derive_seed(0, Purpose::test, 0, 0, 0));
}

/// Pinned: a change here changes every run and breaks resume across versions.
TEST(Philox, StreamsArePinned) {
  EXPECT_EQ(derive_seed(0, Purpose::test), 11626060987097742589ULL);
  EXPECT_EQ(derive_seed(12345, Purpose::data_split, 6, 7, 8), 1149719481497039725ULL);
  Philox stream(1, Purpose::dropout, 2, 3, 4);
  for (int i = 0; i < 9; ++i) stream.next_u32();
  EXPECT_EQ(stream.next_u32(), 2773218838U);
}

TEST(Philox, U64IsTwoU32LowFirst) {
  Philox a(3, Purpose::test), b(3, Purpose::test);
  for (int i = 0; i < 10; ++i) {
    uint64_t const low = a.next_u32(), high = a.next_u32();
    ASSERT_EQ(b.next_u64(), high << 32 | low);
  }
}

TEST(Philox, BelowOneIsZeroAndBelowTwoIsBoth) {
  Philox stream(5, Purpose::test);
  std::set<uint64_t> seen;
  for (int i = 0; i < 64; ++i) {
    ASSERT_EQ(stream.below(1), 0u);
    seen.insert(stream.below(2));
  }
  EXPECT_EQ(seen, (std::set<uint64_t>{0, 1}));
  EXPECT_LT(stream.below(UINT64_MAX), UINT64_MAX);
}

TEST(Philox, ShufflePermutes) {
  std::vector<int> values(1000);
  std::iota(values.begin(), values.end(), 0);
  auto shuffled = values;
  Philox(9, Purpose::test).shuffle(std::span<int>(shuffled));
  EXPECT_NE(shuffled, values);
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(shuffled, values);

  std::vector<int> none, one{4};
  Philox(9, Purpose::test).shuffle(std::span<int>(none));
  Philox(9, Purpose::test).shuffle(std::span<int>(one));
  EXPECT_EQ(one, std::vector<int>{4});
}

}  // namespace
}  // namespace fsllm
