// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <map>

#include "fsllm/core/rng.hpp"
#include "fsllm/sweep/bayes.hpp"
#include "fsllm/sweep/halving.hpp"

namespace fsllm {
namespace {

/// Table 1 of Li et al. 2018: R = 81, η = 3.
TEST(Halving, BracketsOfHyperband) {
  auto const brackets = brackets_of({1, 81, 3, 5, {}}, 81 + 34 + 15 + 8 + 5);
  ASSERT_EQ(brackets.size(), 5U);
  std::vector<size_t> sizes;
  for (auto const& bracket : brackets) sizes.push_back(bracket.settings.size());
  EXPECT_THAT(sizes, testing::ElementsAre(81, 34, 15, 8, 5));
  EXPECT_THAT(brackets[0].rounds, testing::ElementsAre(1, 3, 9, 27, 81));
  EXPECT_THAT(brackets[3].rounds, testing::ElementsAre(27, 81));
  EXPECT_THAT(brackets[4].rounds, testing::ElementsAre(81));
}

TEST(Halving, TheBestOfACompleteRungGoOn) {
  Halving const halving{1, 9, 3, 1, {"loss"}};
  std::map<std::pair<size_t, int64_t>, double> known;
  auto const allowed = [&] {
    return rounds_allowed(halving, 9, [&](size_t s, int64_t r) -> std::optional<double> {
      auto const found = known.find({s, r});
      return found == known.end() ? std::optional<double>() : found->second;
    });
  };
  EXPECT_THAT(allowed(), testing::Each(1));
  for (size_t s = 0; s < 8; ++s) known[{s, 1}] = 10.0 - static_cast<double>(s);
  EXPECT_THAT(allowed(), testing::Each(1)) << "one is missing";
  known[{8, 1}] = std::nan("");
  EXPECT_THAT(allowed(), testing::ElementsAre(1, 1, 1, 1, 1, 3, 3, 3, 1)) << "what failed is out";
  known[{5, 3}] = 1;
  known[{6, 3}] = 2;
  known[{7, 3}] = 3;
  EXPECT_THAT(allowed(), testing::ElementsAre(1, 1, 1, 1, 1, 9, 3, 3, 1));
  auto larger = halving;
  larger.metric.larger_is_better = true;
  auto const best = rounds_allowed(larger, 9, [&](size_t s, int64_t r) -> std::optional<double> {
    if (r > 1) return {};
    return static_cast<double>(s);
  });
  EXPECT_THAT(best, testing::ElementsAre(1, 1, 1, 1, 1, 1, 3, 3, 3));
}

TEST(GaussianProcess, PassesThroughWhatIsKnownAndReturnsToTheMean) {
  std::vector<std::vector<double>> const points{{0.0}, {0.5}, {1.0}};
  std::vector<double> const values{1.0, 0.0, 2.0};
  GaussianProcess const process(points, values);
  for (size_t i = 0; i < points.size(); ++i) {
    EXPECT_NEAR(process.at(points[i]).mean, values[i], 0.15);
    EXPECT_LT(process.at(points[i]).deviation, 0.35);
  }
  auto const far = process.at({100.0});
  EXPECT_NEAR(far.mean, 1.0, 1e-9);
  EXPECT_NEAR(far.deviation, std::sqrt(2.0 / 3.0), 1e-9) << "the spread of the values";
}

/// Against Monte Carlo: E max(best - x, 0).
TEST(GaussianProcess, ExpectedImprovement) {
  Philox random(1, Purpose::test);
  for (auto const& [mean, deviation] : {std::pair{0.5, 1.0}, {-0.2, 0.3}, {2.0, 0.5}}) {
    double sum = 0;
    constexpr int kDraws = 400000;
    for (int i = 0; i < kDraws; ++i) sum += std::max(-(mean + deviation * random.normal()), 0.0);
    EXPECT_NEAR(expected_improvement({mean, deviation}, 0), sum / kDraws, 3e-3);
  }
  EXPECT_EQ(expected_improvement({1, 0}, 0), 0);
}

SweepSpec bowl_space() {
  SweepSpec spec;
  spec.space = {{"x", SearchKey::Kind::uniform, 0, 1},
                {"y", SearchKey::Kind::uniform, 0, 1},
                {"m", SearchKey::Kind::choice, 0, 0, false, {{"a", "a"}, {"b", "b"}, {"c", "c"}}}};
  spec.bayes = Bayes{5, {}};
  return spec;
}

double bowl(std::vector<double> const& p) {
  double const penalty = p[2] < 2.0 / 3 ? 0.5 : 0.0;
  return (p[0] - 0.3) * (p[0] - 0.3) + (p[1] - 0.8) * (p[1] - 0.8) + penalty;
}

/// Twenty settings of a bowl: nearer to its bottom than the best of twenty drawn ones, for nearly every seed.
TEST(Bayes, FindsTheBottomOfABowlSoonerThanChance) {
  int wins = 0;
  double total = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    auto spec = bowl_space();
    spec.search_seed = seed;
    std::vector<std::vector<double>> points;
    std::vector<std::optional<double>> values;
    double best = std::numeric_limits<double>::infinity(), drawn = best;
    Philox random(seed, Purpose::test);
    for (size_t n = 0; n < 20; ++n) {
      points.push_back(next_point(spec, points, values, n));
      values.push_back(bowl(points.back()));
      best = std::min(best, *values.back());
      drawn = std::min(drawn, bowl({random.uniform(), random.uniform(), random.uniform()}));
    }
    wins += best < drawn ? 1 : 0;
    total += best;
  }
  EXPECT_GE(wins, 8);
  EXPECT_LT(total / 10, 0.01);
}

TEST(Bayes, IsOneOfTheSeedAndWhatIsKnown) {
  auto const spec = bowl_space();
  std::vector<std::vector<double>> const points{
      {0.1, 0.1, 0.1}, {0.9, 0.9, 0.9}, {0.3, 0.5, 0.9}, {0.2, 0.8, 0.5}, {0, 0, 0}};
  std::vector<std::optional<double>> values;
  for (auto const& point : points) values.push_back(bowl(point));
  EXPECT_EQ(next_point(spec, points, values, 5), next_point(spec, points, values, 5));
  values[1] = std::nan("");  // failed
  values[3].reset();         // still running
  EXPECT_EQ(next_point(spec, points, values, 5).size(), 3U);
}

}  // namespace
}  // namespace fsllm
