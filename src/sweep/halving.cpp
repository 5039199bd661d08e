// SPDX-License-Identifier: Apache-2.0
#include "fsllm/sweep/halving.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace fsllm {
namespace {

/// Rungs from `first` on, each η times the one before, the last `max`.
std::vector<int64_t> rungs(int64_t first, int64_t max, int64_t eta) {
  std::vector<int64_t> rounds;
  for (int64_t r = first; r * eta <= max; r *= eta) rounds.push_back(r);
  rounds.push_back(max);
  return rounds;
}

/// Smaller is better; what failed is worst.
double rank_value(double score, bool larger_is_better) {
  if (std::isnan(score)) return std::numeric_limits<double>::infinity();
  return larger_is_better ? -score : score;
}

/// The settings of a rung that go on, or nothing while one of its results is missing.
std::optional<std::vector<size_t>> promoted(Halving const& halving, std::vector<size_t> const& rung,
                                            int64_t rounds, RungScore const& score) {
  std::vector<std::pair<double, size_t>> ranked;
  for (auto const setting : rung) {
    auto const result = score(setting, rounds);
    if (!result) return {};
    if (!std::isnan(*result))
      ranked.emplace_back(rank_value(*result, halving.metric.larger_is_better), setting);
  }
  std::sort(ranked.begin(), ranked.end());
  auto const most = std::max<size_t>(1, rung.size() / static_cast<size_t>(halving.eta));
  std::vector<size_t> best;
  for (size_t i = 0; i < std::min(most, ranked.size()); ++i) best.push_back(ranked[i].second);
  return best;
}

}  // namespace

std::vector<Bracket> brackets_of(Halving const& halving, size_t settings) {
  if (halving.brackets == 1) {
    Bracket one{std::vector<size_t>(settings), rungs(halving.min, halving.max, halving.eta)};
    std::iota(one.settings.begin(), one.settings.end(), 0);
    return {one};
  }
  int64_t most = 0;
  for (int64_t r = halving.min; r * halving.eta <= halving.max; r *= halving.eta) ++most;
  std::vector<Bracket> brackets;
  size_t next = 0;
  for (int64_t b = 0; b < halving.brackets; ++b) {
    auto const s = most - b;
    double const power = std::pow(static_cast<double>(halving.eta), static_cast<double>(s));
    auto const count =
        static_cast<size_t>(std::ceil(static_cast<double>(most + 1) / static_cast<double>(s + 1) * power));
    Bracket bracket;
    for (size_t i = 0; i < count && next < settings; ++i) bracket.settings.push_back(next++);
    for (int64_t i = s; i >= 0; --i) {
      double const divisor = std::pow(static_cast<double>(halving.eta), static_cast<double>(i));
      bracket.rounds.push_back(std::max(
          halving.min, static_cast<int64_t>(std::floor(static_cast<double>(halving.max) / divisor))));
    }
    brackets.push_back(std::move(bracket));
  }
  return brackets;
}

std::vector<int64_t> rounds_allowed(Halving const& halving, size_t settings, RungScore const& score) {
  std::vector<int64_t> allowed(settings, halving.min);
  for (auto const& bracket : brackets_of(halving, settings)) {
    auto rung = bracket.settings;
    for (size_t level = 0; level < bracket.rounds.size(); ++level) {
      for (auto const setting : rung) allowed[setting] = bracket.rounds[level];
      if (level + 1 == bracket.rounds.size()) break;
      auto const next = promoted(halving, rung, bracket.rounds[level], score);
      if (!next) break;
      rung = *next;
    }
  }
  return allowed;
}

}  // namespace fsllm
