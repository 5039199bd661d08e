// SPDX-License-Identifier: Apache-2.0
// Reports of runs, as the programs make them.
#include "run_report.hpp"

#include <fmt/core.h>

#include "fsllm/app/inspect.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/folder_lock.hpp"
#include "fsllm/io/output_folder.hpp"
#include "fsllm/report/report.hpp"

namespace fsllm {

namespace {

namespace fs = std::filesystem;

/// Of metrics that are read while a job's ranks wait: about ten seconds.
constexpr std::uintmax_t kMostBytes = std::uintmax_t{1} << 29;

}  // namespace

void write_report(RunDirectory const& run, OutputFolder& folder) {
  std::error_code missing;
  auto const written = fs::last_write_time(run.report(), missing);
  if (!missing && written >= fs::last_write_time(run.summary(), missing) && !missing) return;
  std::uintmax_t bytes = 0;
  for (auto const& file : {run.metrics(), run.client_metrics(), run.rank_metrics()})
    if (auto const size = fs::file_size(file, missing); !missing) bytes += size;
  if (bytes > kMostBytes) {
    log_info(
        "no report.html (reading {} MiB of metrics would hold the job); fsllm_inspect {} --report makes it",
        bytes >> 20, run.root.string());
    return;
  }
  try {
    folder.write("report.html", report_html(read_run_data(run.root)));
  } catch (std::exception const& error) {
    log_warning("{} was not written ({}). The results are whole; fsllm_inspect {} --report makes it.",
                run.report().string(), error.what(), run.root.string());
  }
}

fs::path save_report(fs::path const& run_folder, fs::path const& out) {
  auto const run = read_run_data(run_folder);
  auto const page = report_html(run);
  RunDirectory const directory{run_folder};
  auto const target = out.empty() ? directory.report() : out;
  if (!out.empty() || !lock_holder(run_folder / ".fsllm" / "lock").empty()) {
    write_file_atomic(target, page);
    return target;
  }
  OutputFolder folder(run_folder);
  // A list of this one file would look like that of a whole run, whose other files were then not its own.
  if (folder.owns_anything())
    folder.write("report.html", page);
  else
    write_file_atomic(target, page);
  return target;
}

void compare_command(CommandLine const& line) {
  auto const folders = line.all("compare");
  FSLLM_CHECK(folders.size() > 1, "--compare {} (one run has nothing beside it). Write --compare RUN RUN.",
              folders.empty() ? "" : folders.front());
  std::vector<RunData> runs;
  for (auto const& folder : folders) runs.push_back(read_run_data(folder));
  if (auto const out = line.text("out"); !out.empty()) {
    write_file_atomic(out, comparison_html(runs));
    fmt::print("the comparison lies in {}\n", printable(out));
    return;
  }
  fmt::print("{}", printable(comparison_text(runs)));
}

}  // namespace fsllm
