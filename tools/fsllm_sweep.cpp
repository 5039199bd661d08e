// SPDX-License-Identifier: Apache-2.0
// Runs a configuration under many settings and seeds, and makes tables of the results. It computes nothing
// itself, so it needs neither MPI nor LibTorch, and starts at once.
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "fsllm/app/command_line.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/core/paths.hpp"
#include "fsllm/core/table.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/io/output_file.hpp"
#include "fsllm/sweep/report.hpp"

namespace {

using namespace fsllm;

Program const kProgram{
    "fsllm_sweep",
    "Runs a configuration under many settings and seeds, and makes tables of the results.\n\n"
    "  fsllm_sweep SPEC.yaml list [--json]                       the runs, numbered from 0\n"
    "  fsllm_sweep SPEC.yaml run INDEX [--np N]                  one of them; $SLURM_ARRAY_TASK_ID in an "
    "array\n"
    "  fsllm_sweep SPEC.yaml run all [--jobs N] [--np N]         all that are not done\n"
    "  fsllm_sweep SPEC.yaml status                              how far they are\n"
    "  fsllm_sweep SPEC.yaml table [--format F] [--long]         mean and deviation over seeds; --long: each "
    "run\n"
    "  fsllm_sweep SPEC.yaml plot [--metric PATH] [--out FILE]   the metric over rounds, one SVG\n",
    {{"json", "", "list: a JSON object a line"},
     {"jobs", "N", "run: runs at a time", "1"},
     {"np", "N", "run: ranks of each run", "1"},
     {"launcher", "COMMAND", "run: what starts the ranks, up to their number", "mpirun -np"},
     {"format", "FORMAT", "table: markdown, csv or latex", "markdown"},
     {"long", "", "table: a row a run"},
     {"metric", "PATH", "plot: a number of metrics.jsonl; the SPEC's first metric where it is left out"},
     {"out", "FILE", "plot: where to write it; standard output where it is left out"}},
    Words::any};

/// fsllm_hpc beside this program.
std::filesystem::path run_program_path() {
  auto const path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fsllm_hpc";
  FSLLM_CHECK(std::filesystem::exists(path), "{} is missing (the runs are its work). Install it beside {}.",
              path.string(), kProgram.name);
  return path;
}

std::vector<std::string> words_of(std::string const& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

int64_t at_least_one(CommandLine const& line, char const* option) {
  auto const number = line.number(option, "a whole number from 1");
  FSLLM_CHECK(number > 0, "--{} 0 (a whole number from 1 is needed). Write --{} 1.", option, option);
  return number;
}

int run(CommandLine const& line, SweepSpec const& spec) {
  FSLLM_CHECK(line.words.size() == 3, "run (which one?). Write run all, or run INDEX with a number of list.");
  auto const& which = line.words[2];
  std::optional<size_t> index;
  if (which != "all") {
    bool const number =
        !which.empty() && which.size() < 10 && which.find_first_not_of("0123456789") == std::string::npos;
    FSLLM_CHECK(number, "run {} (a number of list, or all, is needed). Correct it.", which);
    index = std::stoul(which);
  }
  RunOptions options{at_least_one(line, "jobs"), at_least_one(line, "np"), words_of(line.text("launcher")),
                     run_program_path()};
  FSLLM_CHECK(!options.launcher.empty(), "--launcher is empty. Write --launcher \"mpirun -np\".");
  // Launchers that know nothing of one another bind to the same cores.
  if (options.jobs > 1)
    for (auto const* name : {"OMPI_MCA_hwloc_base_binding_policy", "PRTE_MCA_hwloc_default_binding_policy"})
      setenv(name, "none", 0);
  return run_sweep(spec, index, options);
}

int list(CommandLine const& line, SweepSpec const& spec) {
  std::cout << (line.has("json") ? list_json(Sweep(spec)) : list_text(Sweep(spec)));
  return 0;
}

int status(CommandLine const&, SweepSpec const& spec) {
  std::cout << printable(status_text(Sweep(spec)));
  return 0;
}

int table(CommandLine const& line, SweepSpec const& spec) {
  auto const format = table_format(line.text("format"));
  Sweep const sweep(spec);
  std::cout << (line.has("long") ? long_table(sweep, format) : summary_table(sweep, format));
  return 0;
}

int plot(CommandLine const& line, SweepSpec const& spec) {
  auto const metric = line.has("metric") ? SweepMetric{line.text("metric")} : spec.metrics.front();
  auto const svg = plot_svg(Sweep(spec), metric);
  if (!line.has("out"))
    std::cout << svg;
  else
    OutputFile(line.text("out"), "--out").finish(svg);
  return 0;
}

std::vector<Row<int (*)(CommandLine const&, SweepSpec const&)>> const kCommands{
    {"list", list, ""}, {"run", run, ""}, {"status", status, ""}, {"table", table, ""}, {"plot", plot, ""}};

void check_alone() {
  for (auto const* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (char const* const size = std::getenv(name); size != nullptr)
      FSLLM_CHECK(std::atoi(size) < 2, "{} on {} ranks (it is a program for one). Start it without mpirun.",
                  kProgram.name, size);
}

int act(CommandLine const& line) {
  for (auto const& word : line.words)
    FSLLM_CHECK(!word.starts_with('-'), "{} on the command line (no such option). See {} --help.", word,
                kProgram.name);
  check_alone();
  auto const usage = "Write fsllm_sweep SPEC.yaml list, run all, status, table or plot.";
  FSLLM_CHECK(!line.words.empty(), "no SPEC given. {}", usage);
  FSLLM_CHECK(line.words.size() > 1, "{} (what is to be done with it?). {}", line.words[0], usage);
  auto const& command = find_row(kCommands, line.words[1], "command");
  FSLLM_CHECK(line.words.size() < (command.name == "run" ? 4 : 3),
              "'{}' on the command line ({} takes no such word). See {} --help.", line.words.back(),
              command.name, kProgram.name);
  return command.build(line, load_sweep(expand_path(line.words[0], kProgram.name)));
}

}  // namespace

int main(int argc, char** argv) {
  auto const start = answer_command_line(kProgram, argc, argv);
  if (!start.line) return start.exit_code;
  try {
    return act(*start.line);
  } catch (std::exception const& error) {
    auto const [message, code] = failure_of(error);
    print_error_once(message);
    return code;
  }
}
