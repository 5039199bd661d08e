// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/run_directory.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// Everything that a run may write.
std::vector<std::string> const kNames{"config.yaml",
                                      "exp_print.log",
                                      "eval_results.log",
                                      "metrics.jsonl",
                                      "summary.json",
                                      "checkpoints",
                                      "shards",
                                      "adapter",
                                      "best",
                                      "swa",
                                      "model",
                                      "run.json",
                                      "client_cfg.yaml",
                                      "clients",
                                      "metrics_clients.jsonl",
                                      "emulator",
                                      "tasks",
                                      "unfinished",
                                      "metrics_ranks.jsonl",
                                      "report.html",
                                      "tb"};
/// What is the run's own from its start, whoever writes it (fsllm_inspect --report).
std::vector<std::string> const kLogs{"exp_print.log",         "eval_results.log",    "metrics.jsonl",
                                     "metrics_clients.jsonl", "metrics_ranks.jsonl", "report.html"};

bool lies_in(fs::path const& path, fs::path const& folder) {
  auto const [end, ignored] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

void check_inputs(fs::path const& root, std::vector<RunInput> const& inputs) {
  for (auto const& input : inputs)
    for (auto const& name : kNames)
      FSLLM_CHECK(
          !lies_in(fs::weakly_canonical(input.path), fs::weakly_canonical(root / name)),
          "{} = {} (the run writes its own {} there). Move that input out of {}, or choose another expname.",
          input.key, input.path.string(), name, root.string());
}

/// Keeps the lines for which `keep` holds; a missing file is fine.
template <class Keep>
void filter_lines(OutputFolder& folder, std::string const& name, Keep keep) {
  if (!fs::exists(folder.root() / name)) return;
  std::istringstream lines(read_file(folder.root() / name));
  std::string kept;
  for (std::string line; std::getline(lines, line);)
    if (keep(line)) kept += line + "\n";
  folder.write(name, kept);
}

}  // namespace

bool RunDirectory::holds_run() const {
  return fs::exists(config());
}

std::unique_ptr<OutputFolder> RunDirectory::start(bool overwrite, std::vector<RunInput> const& inputs) const {
  auto const check_empty = [&] {
    FSLLM_CHECK(overwrite || !holds_run(),
                "{} already holds a run. Continue it with --resume, replace it with --overwrite, or choose "
                "another expname.",
                root.string());
  };
  check_empty();
  check_inputs(root, inputs);
  auto folder = std::make_unique<OutputFolder>(root);
  check_empty();  // another job may have come and gone
  if (holds_run()) {
    FSLLM_CHECK(folder->owns("config.yaml"),
                "--overwrite: {} (the list of what a run wrote is not there, so nothing is removed). Remove "
                "the folder "
                "by hand, or choose another expname.",
                root.string());
    folder->check_free(kNames);
    folder->remove_all();
  } else {
    auto names = kNames;
    std::erase(names, "shards");
    folder->remove(names);
  }
  folder->check_free(kNames);
  folder->own(kLogs);
  return folder;
}

void RunDirectory::check_holds_run() const {
  FSLLM_CHECK(
      fs::exists(root),
      "{} holds no run to continue (there is no such folder). Give --resume a run directory, which is "
      "outdir/expname, or start it without --resume.",
      root.string());
  FSLLM_CHECK(holds_run(), "{} holds no run to continue (no config.yaml there). Start it without --resume.",
              root.string());
}

std::unique_ptr<OutputFolder> RunDirectory::resume() const {
  check_holds_run();
  auto folder = std::make_unique<OutputFolder>(root);
  // Runs of versions that kept no list.
  if (!folder->owns_anything()) folder->adopt(kNames);
  folder->own(kLogs);
  return folder;
}

void rewind_logs(OutputFolder& folder, int64_t round) {
  auto const keeps = [&](std::string const& line) {
    auto const event = nlohmann::json::parse(line, nullptr, false);
    if (event.is_discarded() || !event.is_object()) return false;
    auto const number = event.find("round"), kind = event.find("event");
    return (number == event.end() ||
            (number->is_number() && number->get<double>() <= static_cast<double>(round))) &&
           !(kind != event.end() && *kind == "end");
  };
  for (auto const* name : {"metrics.jsonl", "metrics_clients.jsonl", "metrics_ranks.jsonl"})
    filter_lines(folder, name, keeps);
  filter_lines(folder, "eval_results.log", [&](std::string const& line) {
    auto const at = line.find("'Round': ");
    bool const ends = line.find("'Server SWA#'") != std::string::npos;  // it comes again with the end
    return !ends && at != std::string::npos && std::atoll(line.c_str() + at + 9) <= round &&
           line.back() == '}';
  });
}

}  // namespace fsllm
