// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "fsllm/sweep/spec.hpp"

namespace fsllm {

/// One tournament of successive halving: its settings, and the rounds of its rungs, which rise.
struct Bracket {
  std::vector<size_t> settings;
  std::vector<int64_t> rounds;
};

/// Successive halving over all settings: rungs of min, min·η, ... rounds, the last of max. Hyperband (Li et
/// al. 2018, algorithm 1): bracket s begins with max·η^-s rounds and ⌈(s_max + 1) η^s / (s + 1)⌉ settings.
std::vector<Bracket> brackets_of(Halving const& halving, size_t settings);

/// A setting's result after so many rounds; nothing while it is missing, NaN where its runs failed.
using RungScore = std::function<std::optional<double>(size_t setting, int64_t rounds)>;

/// How many rounds each setting may train as far as is known: those among the best ⌊n/η⌋ (at least one) of a
/// rung that is complete go on to the next one. Follows from the scores alone.
std::vector<int64_t> rounds_allowed(Halving const& halving, size_t settings, RungScore const& score);

}  // namespace fsllm
