// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/run_directory.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

/// Keeps the lines for which `keep` holds; a missing file is fine.
template <class Keep>
void filter_lines(std::filesystem::path const& path, Keep keep) {
  if (!std::filesystem::exists(path)) return;
  std::istringstream lines(read_file(path));
  std::string kept;
  for (std::string line; std::getline(lines, line);)
    if (keep(line)) kept += line + "\n";
  write_file_atomic(path, kept);
}

}  // namespace

bool RunDirectory::holds_run() const {
  return std::filesystem::exists(config());
}

void RunDirectory::prepare(bool overwrite) const {
  FSLLM_CHECK(overwrite || !holds_run(),
              "{} already holds a run. Continue it with --resume, replace it with --overwrite, or choose "
              "another expname.",
              root.string());
  std::error_code problem;
  std::filesystem::create_directories(root, problem);
  FSLLM_CHECK(!problem, "{} cannot be created ({}). Choose another outdir.", root.string(),
              problem.message());
  for (auto const& path : {config(), log(), eval_results(), metrics(), summary(), checkpoints(), shards(),
                           adapter(), best(), model()})
    std::filesystem::remove_all(path, problem);
}

void RunDirectory::rewind_logs(int64_t round) const {
  filter_lines(metrics(), [&](std::string const& line) {
    auto const event = nlohmann::json::parse(line, nullptr, false);
    return !event.is_discarded() && event.is_object() && event.value("round", int64_t{0}) <= round &&
           event.value("event", "") != "end";
  });
  filter_lines(eval_results(), [&](std::string const& line) {
    auto const at = line.find("'Round': ");
    return at != std::string::npos && std::atoll(line.c_str() + at + 9) <= round && line.back() == '}';
  });
}

}  // namespace fsllm
