// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/task_report.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "fsllm/eval/task.hpp"

namespace fsllm {
namespace {

constexpr double kZ = 1.96;

double mean_of(std::vector<double> const& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Numbers of items by their innermost group, in order of appearance.
using Leaves = std::vector<std::vector<size_t>>;

Leaves leaves_of(std::vector<TaskItem> const& items, std::vector<size_t> const& among) {
  Leaves leaves;
  std::map<std::string, size_t> place;
  for (auto const i : among) {
    auto const& name = items[i].groups.empty() ? std::string() : items[i].groups.back();
    auto const [found, is_new] = place.emplace(name, leaves.size());
    if (is_new) leaves.emplace_back();
    leaves[found->second].push_back(i);
  }
  return leaves;
}

std::vector<double> values_of(std::vector<ItemScore> const& scores, std::vector<size_t> const& among,
                              size_t metric) {
  std::vector<double> values;
  for (auto const i : among) values.push_back(scores[i].values[metric]);
  return values;
}

std::optional<double> pooled_error(Leaves const& leaves, std::vector<ItemScore> const& scores,
                                   size_t metric) {
  if (leaves.size() == 1) return mean_error(values_of(scores, leaves.front(), metric));
  double sum = 0, all = 0;
  for (auto const& leaf : leaves) {
    auto const n = static_cast<double>(leaf.size());
    auto const error = mean_error(values_of(scores, leaf, metric)).value_or(0);
    sum += (n - 1) * error * error * n;
    all += n;
  }
  auto const freedom = all - static_cast<double>(leaves.size());
  if (freedom <= 0) return {};
  return std::sqrt(sum / freedom / all);
}

/// Share of the choice that is right most often.
double best_constant(std::vector<TaskItem> const& items, std::vector<size_t> const& among) {
  std::map<int64_t, int64_t> counts;
  int64_t most = 0;
  for (auto const i : among) most = std::max(most, ++counts[items[i].gold]);
  return static_cast<double>(most) / static_cast<double>(among.size());
}

void set_interval(Metric& metric, int64_t items) {
  if (metric.kind.is_share) return set_wilson(metric, items);
  if (!metric.error) return;
  metric.low = metric.value - kZ * *metric.error;
  metric.high = metric.value + kZ * *metric.error;
}

Metric unweighted_of(Metric const& weighted, Leaves const& leaves, std::vector<ItemScore> const& scores,
                     size_t metric) {
  Metric mean{weighted.kind};
  mean.kind.name += "_unweighted";
  mean.kind.is_share = false;
  double squares = 0;
  bool all_known = true;
  auto const count = static_cast<double>(leaves.size());
  for (auto const& leaf : leaves) {
    auto const values = values_of(scores, leaf, metric);
    auto const error = mean_error(values);
    mean.value += mean_of(values) / count;
    squares += error.value_or(0) * error.value_or(0);
    all_known = all_known && error.has_value();
  }
  if (all_known) mean.error = std::sqrt(squares) / count;
  set_interval(mean, 0);
  return mean;
}

}  // namespace

std::optional<double> mean_error(std::vector<double> const& values) {
  if (values.size() < 2) return {};
  auto const mean = mean_of(values);
  double sum = 0;
  for (auto const value : values) sum += (value - mean) * (value - mean);
  auto const n = static_cast<double>(values.size());
  return std::sqrt(sum / (n - 1)) / std::sqrt(n);
}

void set_wilson(Metric& metric, int64_t items) {
  auto const n = static_cast<double>(items), p = metric.value, z2 = kZ * kZ;
  auto const middle = (p + z2 / (2 * n)) / (1 + z2 / n);
  auto const half = kZ / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  metric.low = std::max(0.0, middle - half);
  metric.high = std::min(1.0, middle + half);
}

std::vector<ReportRow> mean_rows(std::string const& task, std::vector<MetricKind> const& metrics,
                                 std::vector<TaskItem> const& items, std::vector<ItemScore> const& scores,
                                 bool unweighted) {
  std::vector<ReportRow> rows;
  auto const add = [&](std::string const& name, int64_t level, std::vector<size_t> const& among) {
    ReportRow row{name, name, level, static_cast<int64_t>(among.size()), {}};
    if (level > 0 && name.starts_with(task + "_")) row.alias = name.substr(task.size() + 1);
    auto const leaves = leaves_of(items, among);
    for (size_t m = 0; m < metrics.size(); ++m) {
      Metric metric{metrics[m], mean_of(values_of(scores, among, m))};
      metric.error = pooled_error(leaves, scores, m);
      set_interval(metric, row.items);
      if (metrics[m].is_choice) metric.constant = best_constant(items, among);
      row.metrics.push_back(metric);
      if (unweighted && leaves.size() > 1) row.metrics.push_back(unweighted_of(metric, leaves, scores, m));
    }
    rows.push_back(std::move(row));
  };
  std::vector<size_t> all(items.size());
  std::iota(all.begin(), all.end(), size_t{0});
  add(task, 0, all);
  size_t depth = 0;
  for (auto const& item : items) depth = std::max(depth, item.groups.size());
  for (size_t level = 0; level < depth; ++level) {
    std::map<std::string, std::vector<size_t>> groups;
    for (auto const i : all)
      if (items[i].groups.size() > level) groups[items[i].groups[level]].push_back(i);
    for (auto const& [name, among] : groups) add(name, static_cast<int64_t>(level) + 1, among);
  }
  return rows;
}

}  // namespace fsllm
