// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>

#include "fsllm/core/error.hpp"
#include "fsllm/core/progress.hpp"
#include "fsllm/io/folder_lock.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/sweep/report.hpp"

namespace fsllm {
namespace {

std::string first_line(std::string const& text) {
  return text.substr(0, text.find('\n'));
}

std::string failure_of_run(RunFiles const& files) {
  if (!std::filesystem::exists(files.record)) return "";
  auto const record = read_json(files.record);
  return fmt::format("exit code {}: {}", record.value("exit_code", 0), first_line(record.value("said", "")));
}

}  // namespace

std::string status_text(Sweep const& sweep) {
  std::map<RunState, int64_t> counts;
  std::string lines;
  double seconds = 0;
  int64_t measured = 0, left = 0;
  for (auto const& run : sweep.runs) {
    auto const state = sweep.state(run);
    ++counts[state];
    auto const wanted = sweep.rounds[run.setting];
    auto const cost = cost_of(run);
    seconds += cost.seconds;
    measured += cost.rounds;
    if (state != RunState::done) left += std::max<int64_t>(wanted - cost.rounds, 0);
    if (state == RunState::running)
      lines += fmt::format("run {} ({}): round {} of {}, {}\n", run.index, run.name, cost.rounds, wanted,
                           lock_holder(files_of(sweep.spec, run).lock));
    if (state == RunState::failed)
      lines += fmt::format("run {} ({}): failed, {}\n", run.index, run.name,
                           failure_of_run(files_of(sweep.spec, run)));
  }
  auto text = fmt::format("{} runs: {} done, {} running, {} pending, {} failed\n", sweep.runs.size(),
                          counts[RunState::done], counts[RunState::running], counts[RunState::pending],
                          counts[RunState::failed]);
  if (left > 0 && measured > 0) {
    auto const at_a_time = std::max<int64_t>(counts[RunState::running], 1);
    double const round = seconds / static_cast<double>(measured);
    text += fmt::format("{} rounds are left, {:.3g} s each so far: {} with {} at a time\n", left, round,
                        duration_text(round * static_cast<double>(left) / static_cast<double>(at_a_time)),
                        at_a_time);
  }
  return text + lines;
}

}  // namespace fsllm
