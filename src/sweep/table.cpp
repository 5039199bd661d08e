// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/sweep/report.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using Cells = std::vector<std::string>;

/// What the runs of a setting have given.
struct SettingResult {
  size_t done = 0;
  std::vector<Measure> metrics;
};

std::vector<SettingResult> results_of(Sweep const& sweep) {
  std::vector<SettingResult> results(sweep.settings.size());
  for (size_t s = 0; s < sweep.settings.size(); ++s) {
    std::vector<std::vector<double>> values(sweep.spec.metrics.size());
    for (size_t i = 0; i < sweep.spec.seeds.size(); ++i) {
      auto const& run = sweep.runs[s * sweep.spec.seeds.size() + i];
      if (!is_done(run, sweep.rounds[s])) continue;
      ++results[s].done;
      auto const summary = summary_of(run);
      for (size_t m = 0; m < values.size(); ++m)
        if (auto const value = number_at(summary, sweep.spec.metrics[m].path)) values[m].push_back(*value);
    }
    for (auto const& of_metric : values) results[s].metrics.push_back(measure(of_metric));
  }
  return results;
}

/// Which settings have the best mean: among those with all their runs, or, as long as none has, among all.
std::vector<bool> best_of(std::vector<SettingResult> const& results, size_t metric, SweepSpec const& spec) {
  auto const full = spec.seeds.size();
  bool const any_full = std::any_of(results.begin(), results.end(), [&](SettingResult const& result) {
    return result.metrics[metric].count == full;
  });
  std::optional<double> best;
  auto const counts = [&](SettingResult const& result) {
    auto const count = result.metrics[metric].count;
    return any_full ? count == full : count > 0;
  };
  for (auto const& result : results) {
    if (!counts(result)) continue;
    double const mean = result.metrics[metric].mean;
    bool const better = best && (spec.metrics[metric].larger_is_better ? mean > *best : mean < *best);
    if (!best || better) best = mean;
  }
  std::vector<bool> is_best;
  for (auto const& result : results)
    is_best.push_back(counts(result) && result.metrics[metric].mean == *best);
  return is_best;
}

Cells keys_header(Sweep const& sweep) {
  Cells header;
  for (auto const& row : sweep.spec.grid) header.push_back(row.key);
  for (auto const& row : sweep.spec.space) header.push_back(row.key);
  if (sweep.spec.halving) header.emplace_back("rounds");
  return header;
}

Cells keys_cells(Sweep const& sweep, size_t setting) {
  Cells cells;
  for (auto const& [key, value] : sweep.settings[setting]) cells.push_back(value.text);
  if (sweep.spec.halving) cells.push_back(std::to_string(sweep.rounds[setting]));
  return cells;
}

/// A sentence on the runs that the table lacks, as a comment of the format.
std::string missing_note(Sweep const& sweep, TableFormat format) {
  std::string missing;
  size_t count = 0;
  for (auto const& run : sweep.runs) {
    if (is_done(run, sweep.rounds[run.setting])) continue;
    ++count;
    missing += fmt::format("{}{} ({})", missing.empty() ? "" : ", ", run.index, name_of(sweep.state(run)));
  }
  if (count == 0 || format == TableFormat::csv) return "";
  return fmt::format("{}{} of {} runs are missing: {}\n", format == TableFormat::latex ? "% " : "\n", count,
                     sweep.runs.size(), missing);
}

std::string adapter_sha256(SweepRun const& run) {
  for (auto const* name : {"adapter/adapter_model.safetensors", "model/model.safetensors"})
    if (auto const file = run.dir / name; fs::exists(file)) return sha256_file(file);
  return "";
}

void add_measures(Cells& cells, Measure const& measured) {
  cells.push_back(measured.count > 0 ? csv_number(measured.mean) : "");
  cells.push_back(measured.deviation ? csv_number(*measured.deviation) : "");
}

}  // namespace

std::string summary_table(Sweep const& sweep, TableFormat format) {
  auto const& spec = sweep.spec;
  auto const results = results_of(sweep);
  bool const csv = format == TableFormat::csv;
  auto header = keys_header(sweep);
  auto const first_made = header.size();
  std::vector<Cells> rows;
  for (size_t s = 0; s < sweep.settings.size(); ++s) rows.push_back(keys_cells(sweep, s));
  if (csv) {
    header.emplace_back("runs");
    for (size_t s = 0; s < rows.size(); ++s) rows[s].push_back(std::to_string(results[s].done));
  }
  for (size_t m = 0; m < spec.metrics.size(); ++m) {
    auto const& path = spec.metrics[m].path;
    header.push_back(csv ? path + "_mean" : path);
    if (csv) header.push_back(path + "_std");
    std::vector<Measure> column;
    for (auto const& result : results) column.push_back(result.metrics[m]);
    auto const is_best = best_of(results, m, spec);
    auto const decimals = decimals_of(column);
    for (size_t s = 0; s < rows.size(); ++s) {
      if (csv) {
        add_measures(rows[s], column[s]);
        continue;
      }
      auto const some = column[s].count > 0 && column[s].count < spec.seeds.size();
      rows[s].push_back(cell_text(column[s], decimals, is_best[s], format) +
                        (some ? fmt::format(" ({} of {} runs)", column[s].count, spec.seeds.size()) : ""));
    }
  }
  return table_text(header, rows, format, first_made) + missing_note(sweep, format);
}

std::string long_table(Sweep const& sweep, TableFormat format) {
  auto header = keys_header(sweep);
  header.emplace_back("seed");
  for (auto const& metric : sweep.spec.metrics) header.push_back(metric.path);
  for (auto const* name : {"state", "seconds", "bytes", "adapter_sha256", "config"})
    header.emplace_back(name);
  std::vector<Cells> rows;
  for (auto const& run : sweep.runs) {
    auto cells = keys_cells(sweep, run.setting);
    cells.push_back(std::to_string(run.seed));
    bool const done = is_done(run, sweep.rounds[run.setting]);
    auto const summary = done ? summary_of(run) : nlohmann::json();
    for (auto const& metric : sweep.spec.metrics) {
      auto const value = number_at(summary, metric.path);
      cells.push_back(value ? csv_number(*value) : "");
    }
    auto const cost = cost_of(run);
    cells.push_back(name_of(sweep.state(run)));
    cells.push_back(fmt::format("{:.3f}", cost.seconds));
    cells.push_back(std::to_string(cost.bytes));
    cells.push_back(done ? adapter_sha256(run) : "");
    cells.push_back(fmt::format("{}/{}/config.yaml", sweep.spec.outdir, run.name));
    rows.push_back(std::move(cells));
  }
  return table_text(header, rows, format, header.size());
}

}  // namespace fsllm
