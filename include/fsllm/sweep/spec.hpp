// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fsllm {

/// A value of a configuration key: as the command line takes it, and as JSON. Of a named choice: its name,
/// and the keys that it sets.
struct SweepValue {
  std::string text;
  nlohmann::ordered_json json;
  std::vector<std::pair<std::string, SweepValue>> sets = {};
};

/// The keys that a setting changes in the base configuration, in the order of the SPEC; named choices stand
/// under the name of what is chosen.
using Setting = std::vector<std::pair<std::string, SweepValue>>;

struct GridKey {
  std::string key;
  std::vector<SweepValue> values;
};

/// One dimension of a search space.
struct SearchKey {
  enum class Kind { uniform, log_uniform, choice };
  std::string key;
  Kind kind = Kind::uniform;
  double low = 0, high = 0;
  bool whole = false;  ///< both bounds are written as whole numbers: so are the values
  std::vector<SweepValue> choices;
};

/// A path into summary.json, such as val.loss_per_token.
struct SweepMetric {
  std::string path;
  bool larger_is_better = false;
};

/// Successive halving (Jamieson & Talwalkar 2016): the best 1/eta of each rung go on to eta times the rounds.
/// With `brackets` > 1 Hyperband's (Li et al. 2018), the most aggressive first.
struct Halving {
  int64_t min = 1, max = 0, eta = 3, brackets = 1;
  SweepMetric metric;
};

/// Bayesian optimisation: `initial` settings are drawn, the others are where a Gaussian process expects the
/// largest improvement.
struct Bayes {
  int64_t initial = 0;
  SweepMetric metric;
};

/// A sweep as its SPEC describes it.
struct SweepSpec {
  std::filesystem::path file, folder;  ///< the SPEC, and its folder: what all other paths are relative to
  std::string base;                    ///< the configuration
  std::string base_sha256;
  std::string outdir;
  std::vector<GridKey> grid;
  std::vector<SearchKey> space;  ///< of random and bayes; empty under a grid
  int64_t count = 0;             ///< settings drawn from the space
  uint64_t search_seed = 0;
  std::optional<Halving> halving;
  std::optional<Bayes> bayes;
  std::vector<int64_t> seeds;
  std::vector<SweepMetric> metrics;
  int64_t base_rounds = 0;  ///< federate.total_round_num of the base configuration
  /// Where the sweep keeps its locks, logs and records, beside the folders of the runs.
  std::filesystem::path own_folder() const { return folder / outdir / ".sweep"; }
};

/// Reads a SPEC; an unknown or missing key, a value of the wrong kind, and a base configuration that cannot
/// be read are Errors with file and line.
SweepSpec load_sweep(std::filesystem::path const& file);

}  // namespace fsllm
