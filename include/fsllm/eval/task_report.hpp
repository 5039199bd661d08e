// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fsllm {

struct TaskItem;

/// What is measured of each item; `filter` is how the answer was taken from the text ("none": it was not).
struct MetricKind {
  std::string name, filter = "none";
  bool is_share = true;    ///< 0 or 1 an item
  bool is_choice = false;  ///< of TaskItem::gold: a constant answer has a score of its own
  bool higher_is_better = true;
  std::string key() const { return name + "," + filter; }
};

/// One item's values, in the order of the task's metrics.
struct ItemScore {
  std::string prediction;
  std::vector<double> values;
};

/// A number of the report. The interval has 95 %: Wilson's of shares, else 1.96 standard errors.
struct Metric {
  MetricKind kind;
  double value = 0;
  std::optional<double> error;  ///< standard error of the mean
  std::optional<double> low, high;
  std::optional<double> constant;  ///< score of the best constant answer
};

/// A line of the report: a task, a group of its items, or one of its subtasks.
struct ReportRow {
  std::string name, alias;
  int64_t level = 0;  ///< 0: the task as a whole
  int64_t items = 0;
  std::vector<Metric> metrics;
};

/// Wilson's score interval of a share (Wilson 1927), z = 1.96.
void set_wilson(Metric& metric, int64_t items);
/// Standard error of a mean of values, sample standard deviation over sqrt(n); none of fewer than two.
std::optional<double> mean_error(std::vector<double> const& values);

/// Means over all items, over each outer group and each inner one. The error of a row of several innermost
/// groups is lm-evaluation-harness' pooled_sample_stderr; the mean that weighs those groups alike stands
/// beside theirs as "NAME_unweighted" where `unweighted`.
std::vector<ReportRow> mean_rows(std::string const& task, std::vector<MetricKind> const& metrics,
                                 std::vector<TaskItem> const& items, std::vector<ItemScore> const& scores,
                                 bool unweighted = false);

}  // namespace fsllm
