// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fsllm/sweep/spec.hpp"

namespace fsllm {

/// One run of a sweep: a setting under a seed.
struct SweepRun {
  size_t index = 0;    ///< from 0, as in sbatch --array=0-7
  size_t setting = 0;  ///< number of the setting
  int64_t seed = 0;
  std::string name;           ///< folder below outdir; says the setting and the seed
  std::filesystem::path dir;  ///< absolute
};

/// All settings of a grid (the last key varies fastest), or `spec.count` drawn ones; the n-th depends on n,
/// the seed of the search and the space alone. Under bayes those that have been chosen so far.
std::vector<Setting> settings_of(SweepSpec const& spec);
/// The n-th setting drawn from the space.
Setting drawn_setting(SweepSpec const& spec, size_t n);
/// The setting at a point of the unit cube, one coordinate for each key of the space.
Setting setting_at(SweepSpec const& spec, std::vector<double> const& point);
/// The point of a setting that setting_at() or drawn_setting() made; of a range's value to rounding.
std::vector<double> point_of(SweepSpec const& spec, Setting const& setting);

/// The runs of all settings, seeds innermost. Names consist of letters, digits and "._=+-"; where those of
/// two settings would be equal or too long, they end in a hash.
std::vector<SweepRun> runs_of(SweepSpec const& spec, std::vector<Setting> const& settings);

/// The configuration keys of a setting, those of named choices among them, and their values.
std::vector<std::pair<std::string, SweepValue>> assignments(Setting const& setting);
/// {"train.optimizer.lr": 0.02, ...}, what named choices set among them.
nlohmann::ordered_json keys_json(Setting const& setting);
/// {"adapter": "LoRA", ...}: the named choices.
nlohmann::ordered_json choices_json(Setting const& setting);
/// "train.optimizer.lr = 0.02, ...", for people.
std::string keys_text(Setting const& setting);

}  // namespace fsllm
