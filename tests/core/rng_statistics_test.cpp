// SPDX-License-Identifier: Apache-2.0
// The streams are fixed by their seeds, so these tests cannot flicker; bounds are five standard errors.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>

#include "fsllm/core/rng.hpp"

namespace fsllm {
namespace {

constexpr int kDraws = 200000;

struct Moments {
  double mean = 0, variance = 0;
};

template <class Draw>
Moments moments_of(Draw draw) {
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    double const x = draw();
    sum += x;
    squares += x * x;
  }
  double const mean = sum / kDraws;
  return {mean, squares / kDraws - mean * mean};
}

/// Five standard errors of a mean of kDraws values with this variance.
double five_sigma(double variance) {
  return 5 * std::sqrt(variance / kDraws);
}

TEST(PhiloxStatistics, Uniform) {
  Philox stream(1, Purpose::test);
  double low = 1, high = 0;
  auto const got = moments_of([&] {
    double const x = stream.uniform();
    low = std::min(low, x);
    high = std::max(high, x);
    return x;
  });
  EXPECT_NEAR(got.mean, 0.5, five_sigma(1.0 / 12));
  EXPECT_NEAR(got.variance, 1.0 / 12, five_sigma(1.0 / 180));
  EXPECT_GE(low, 0);
  EXPECT_LT(high, 1);
}

TEST(PhiloxStatistics, Normal) {
  Philox stream(2, Purpose::test);
  int beyond_two = 0;
  double cubes = 0;
  auto const got = moments_of([&] {
    double const x = stream.normal();
    beyond_two += std::abs(x) > 2;
    cubes += x * x * x;
    return x;
  });
  EXPECT_NEAR(got.mean, 0, five_sigma(1));
  EXPECT_NEAR(got.variance, 1, five_sigma(2));
  EXPECT_NEAR(cubes / kDraws, 0, five_sigma(15));
  double const tail = std::erfc(2 / std::sqrt(2.0));
  EXPECT_NEAR(static_cast<double>(beyond_two) / kDraws, tail, five_sigma(tail * (1 - tail)));
}

/// Gamma(a, 1): mean a, variance a, fourth central moment 3a² + 6a.
TEST(PhiloxStatistics, Gamma) {
  for (double const shape : {0.05, 0.5, 1.0, 2.5, 40.0}) {
    Philox stream(3, Purpose::test, static_cast<uint64_t>(shape * 100));
    auto const got = moments_of([&] { return stream.gamma(shape); });
    EXPECT_NEAR(got.mean, shape, five_sigma(shape)) << shape;
    EXPECT_NEAR(got.variance, shape, five_sigma(2 * shape * shape + 6 * shape)) << shape;
  }
}

TEST(PhiloxStatistics, BelowIsUniformForABoundThatDoesNotDivide) {
  Philox stream(4, Purpose::test);
  std::array<int, 7> counts{};
  for (int i = 0; i < kDraws; ++i) ++counts[stream.below(counts.size())];
  double const expected = kDraws / 7.0;
  double chi_square = 0;
  for (int const count : counts) chi_square += std::pow(count - expected, 2) / expected;
  EXPECT_LT(chi_square, 22.5);  // 6 degrees of freedom, p = 0.001
}

TEST(PhiloxStatistics, EveryPermutationOfThreeIsEquallyLikely) {
  std::map<std::array<int, 3>, int> counts;
  Philox stream(5, Purpose::test);
  for (int i = 0; i < 60000; ++i) {
    std::array<int, 3> values{0, 1, 2};
    stream.shuffle(std::span<int>(values));
    ++counts[values];
  }
  ASSERT_EQ(counts.size(), 6u);
  double chi_square = 0;
  for (auto const& [permutation, count] : counts) chi_square += std::pow(count - 10000, 2) / 10000;
  EXPECT_LT(chi_square, 20.5);  // 5 degrees of freedom, p = 0.001
}

/// Streams of neighbouring clients, rounds and steps are uncorrelated.
TEST(PhiloxStatistics, NeighbouringStreamsAreUncorrelated) {
  Philox base(6, Purpose::test, 1, 1, 1);
  std::array<Philox, 4> others{Philox(7, Purpose::test, 1, 1, 1), Philox(6, Purpose::test, 2, 1, 1),
                               Philox(6, Purpose::test, 1, 2, 1), Philox(6, Purpose::test, 1, 1, 2)};
  std::array<double, 4> products{};
  for (int i = 0; i < kDraws; ++i) {
    double const x = base.uniform() - 0.5;
    for (size_t k = 0; k < others.size(); ++k) products[k] += x * (others[k].uniform() - 0.5);
  }
  for (double const product : products) EXPECT_NEAR(product / kDraws, 0, five_sigma(1.0 / 144));
}

}  // namespace
}  // namespace fsllm
