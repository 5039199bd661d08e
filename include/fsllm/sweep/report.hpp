// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "fsllm/sweep/sweep.hpp"

namespace fsllm {

/// A line a run: number, state, folder; or a JSON object with its keys.
std::string list_text(Sweep const& sweep);
std::string list_json(Sweep const& sweep);

/// How many runs are in which state, how far those are that run, and when the rest may be done: rounds that
/// are left times the mean seconds of a round, shared by the runs that run.
std::string status_text(Sweep const& sweep);

/// The mean of a metric over seeds, and the standard deviation with n − 1 (none for one value).
struct Measure {
  size_t count = 0;
  double mean = 0;
  std::optional<double> deviation;
};
Measure measure(std::vector<double> const& values);

enum class TableFormat { markdown, csv, latex };
TableFormat table_format(std::string const& name);

/// Decimals at which a column of measures is printed: two digits of the smallest deviation (four decimals
/// where there is none), at least three.
int decimals_of(std::vector<Measure> const& column);
/// "**3.2143** ± 0.0021", "$\mathbf{3.2143} \pm 0.0021$"; "–" where nothing was measured. Not for CSV.
std::string cell_text(Measure const& measure, int decimals, bool is_best, TableFormat format);
/// A number of CSV: at least three decimals and nine significant digits.
std::string csv_number(double value);

/// One table as text, texts escaped by the rules of its format (cells that cell_text() made are left alone:
/// those from column `first_made` on).
std::string table_text(std::vector<std::string> const& header,
                       std::vector<std::vector<std::string>> const& rows, TableFormat format,
                       size_t first_made);

/// A row a setting: its values, and each metric over the seeds, the best in bold (among settings whose runs
/// are all done, while there is one). Runs that are missing are said below (in CSV by the column `runs`).
std::string summary_table(Sweep const& sweep, TableFormat format);
/// A row a run: values, seed, metrics, and what the run wrote: SHA-256 of the adapter, seconds and bytes of
/// all rounds, its configuration.
std::string long_table(Sweep const& sweep, TableFormat format);

/// One SVG that needs nothing else: the metric over rounds, a line a setting (mean over the seeds that have
/// got so far) with a band of one standard deviation.
std::string plot_svg(Sweep const& sweep, SweepMetric const& metric);

}  // namespace fsllm
