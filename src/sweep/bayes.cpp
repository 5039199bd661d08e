// SPDX-License-Identifier: Apache-2.0
#include "fsllm/sweep/bayes.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <thread>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/folder_lock.hpp"

namespace fsllm {
namespace {

constexpr int kDrawn = 1000, kNeighbours = 200;
constexpr double kStep = 0.05;  ///< standard deviation of a neighbour's coordinates

/// What the process sees of a point: a choice is a corner of a simplex, so that all choices are equally far
/// apart.
std::vector<double> features(SweepSpec const& spec, std::vector<double> const& point) {
  std::vector<double> seen;
  for (size_t k = 0; k < spec.space.size(); ++k) {
    auto const n = spec.space[k].choices.size();
    if (n == 0) {
      seen.push_back(point[k]);
      continue;
    }
    auto const which = std::min(static_cast<size_t>(point[k] * static_cast<double>(n)), n - 1);
    for (size_t i = 0; i < n; ++i) seen.push_back(i == which ? 0.5 : 0.0);
  }
  return seen;
}

std::vector<double> drawn_point(SweepSpec const& spec, Philox& random) {
  std::vector<double> point;
  for (size_t k = 0; k < spec.space.size(); ++k) point.push_back(random.uniform());
  return point;
}

std::vector<double> neighbour(SweepSpec const& spec, std::vector<double> point, Philox& random) {
  for (size_t k = 0; k < point.size(); ++k)
    if (spec.space[k].choices.empty())
      point[k] = std::clamp(point[k] + kStep * random.normal(), 0.0, 1.0 - 1e-9);
    else if (random.uniform() < 0.2)
      point[k] = random.uniform();
  return point;
}

/// The list is changed by one process at a time.
std::unique_ptr<FolderLock> lock_settings(SweepSpec const& spec) {
  constexpr int kAttempts = 600;
  auto const file = spec.own_folder() / "settings.lock";
  for (int i = 0; i < kAttempts && !lock_holder(file).empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  return std::make_unique<FolderLock>(spec.own_folder(), file);
}

void save_settings(Sweep const& sweep, std::vector<Setting> const& settings) {
  auto rows = nlohmann::ordered_json::array();
  for (auto const& setting : settings) {
    auto row = nlohmann::ordered_json::object();
    for (auto const& [key, value] : setting) row[key] = {value.text, value.json};
    rows.push_back(row);
  }
  write_file_atomic(sweep.spec.own_folder() / "settings.json", rows.dump(1) + "\n");
}

void add_setting(Sweep& sweep) {
  auto const& spec = sweep.spec;
  auto const& metric = spec.bayes->metric;
  std::vector<std::vector<double>> points;
  std::vector<std::optional<double>> values;
  for (size_t s = 0; s < sweep.settings.size(); ++s) {
    points.push_back(point_of(spec, sweep.settings[s]));
    auto const score = sweep.score(s, metric.path, sweep.rounds[s]);
    values.push_back(score && metric.larger_is_better ? -*score : score);
  }
  auto settings = sweep.settings;
  settings.push_back(setting_at(spec, next_point(spec, points, values, settings.size())));
  save_settings(sweep, settings);
  sweep.refresh();
}

bool has_pending(Sweep const& sweep) {
  return std::any_of(sweep.runs.begin(), sweep.runs.end(),
                     [&](SweepRun const& run) { return sweep.state(run) == RunState::pending; });
}

}  // namespace

std::vector<double> next_point(SweepSpec const& spec, std::vector<std::vector<double>> const& points,
                               std::vector<std::optional<double>> const& values, size_t n) {
  Philox random(spec.search_seed, Purpose::subsample, n);
  std::vector<std::vector<double>> seen;
  std::vector<double> known;
  size_t best = 0;
  double lowest = std::numeric_limits<double>::infinity(), highest = -lowest;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i] || std::isnan(*values[i])) continue;
    highest = std::max(highest, *values[i]);
    known.push_back(*values[i]);
    if (*values[i] < lowest) {
      lowest = *values[i];
      best = i;
    }
  }
  if (std::cmp_less(n, spec.bayes->initial) || known.size() < 2) return drawn_point(spec, random);
  double mean = 0;
  for (auto const value : known) mean += value / static_cast<double>(known.size());
  std::vector<double> all;
  for (size_t i = 0; i < values.size(); ++i) {
    seen.push_back(features(spec, points[i]));
    all.push_back(!values[i] ? mean : std::isnan(*values[i]) ? highest : *values[i]);
  }
  GaussianProcess const process(seen, all);
  std::vector<double> chosen;
  double most = -1;
  for (int i = 0; i < kDrawn + kNeighbours; ++i) {
    auto point = i < kDrawn ? drawn_point(spec, random) : neighbour(spec, points[best], random);
    double const gain = expected_improvement(process.at(features(spec, point)), lowest);
    if (gain <= most) continue;
    most = gain;
    chosen = std::move(point);
  }
  return chosen;
}

void choose_settings(Sweep& sweep, std::optional<size_t> index) {
  auto const& spec = sweep.spec;
  auto const wanted = index
                          ? std::min<size_t>(*index / spec.seeds.size() + 1, static_cast<size_t>(spec.count))
                          : static_cast<size_t>(spec.count);
  sweep.refresh();
  if (sweep.settings.size() >= wanted || (!index && has_pending(sweep))) return;
  auto const lock = lock_settings(spec);
  sweep.refresh();
  while (sweep.settings.size() < wanted && (index || !has_pending(sweep))) add_setting(sweep);
}

}  // namespace fsllm
