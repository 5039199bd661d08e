// SPDX-License-Identifier: Apache-2.0
#include <signal.h>

#include <algorithm>
#include <set>

#include "child.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/sweep/sweep.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// The first setting, and for each other value of each key a setting that differs from it in that key alone.
std::vector<Setting> probes(SweepSpec const& spec, std::vector<Setting> const& settings) {
  std::vector<Setting> found;
  if (!spec.space.empty()) {
    std::vector<double> const lowest(spec.space.size(), 0.0);
    found.push_back(setting_at(spec, lowest));
    for (size_t k = 0; k < spec.space.size(); ++k) {
      auto const steps = std::max<size_t>(spec.space[k].choices.size(), 2);
      for (size_t i = 1; i < steps; ++i) {
        auto point = lowest;
        point[k] = spec.space[k].choices.empty()
                       ? 1.0
                       : (static_cast<double>(i) + 0.5) / static_cast<double>(spec.space[k].choices.size());
        found.push_back(setting_at(spec, point));
      }
    }
    return found;
  }
  found.push_back(settings.front());
  for (size_t k = 0; k < spec.grid.size(); ++k)
    for (size_t i = 1; i < spec.grid[k].values.size(); ++i) {
      found.push_back(settings.front());
      found.back()[k].second = spec.grid[k].values[i];
    }
  return found;
}

std::vector<std::string> check_command(SweepSpec const& spec, Setting const& setting,
                                       fs::path const& program) {
  std::vector<std::string> words{program.string(), "--check", "--cfg", spec.base};
  for (auto const& [key, value] : assignments(setting)) words.push_back(key + "=" + value.text);
  words.push_back(fmt::format("seed={}", spec.seeds.front()));
  words.push_back("outdir=" + spec.outdir);
  return words;
}

/// Changes with whatever the checks read of the sweep.
std::string fingerprint(SweepSpec const& spec, std::vector<Setting> const& settings) {
  auto text = spec.base_sha256;
  for (auto const& setting : settings) text += "\n" + keys_json(setting).dump();
  return sha256(text) + "\n";
}

}  // namespace

void check_settings(Sweep const& sweep, RunOptions const& options) {
  auto const& spec = sweep.spec;
  auto const settings = probes(spec, sweep.settings);
  make_folder(spec.own_folder());
  auto const mark = spec.own_folder() / "checked";
  if (fs::exists(mark) && read_file(mark) == fingerprint(spec, settings)) return;
  auto const log = spec.own_folder() / "check.log";
  std::vector<std::pair<pid_t, size_t>> active;
  auto const own_log = [&](size_t i) { return fs::path(log.string() + "." + std::to_string(i)); };
  std::string problem;
  size_t next = 0;
  while ((next < settings.size() && problem.empty() && !interrupted()) || !active.empty()) {
    bool const more = next < settings.size() && problem.empty() && !interrupted();
    if (more && std::cmp_less(active.size(), options.jobs)) {
      active.emplace_back(detail::start_child(check_command(spec, settings[next], options.program),
                                              spec.folder, own_log(next)),
                          next);
      ++next;
      continue;
    }
    auto const [pid, which] = active.front();
    active.erase(active.begin());
    int const code = detail::wait_for(pid);
    if (code != 0 && problem.empty() && !interrupted())
      problem = fmt::format("{}: {}{}{}", spec.file.string(), keys_text(settings[which]),
                            settings[which].empty() ? "" : ": ", detail::last_words(own_log(which), 5));
    fs::remove(own_log(which));
  }
  if (!problem.empty()) fail(problem);
  if (!interrupted()) write_file_atomic(mark, fingerprint(spec, settings));
}

}  // namespace fsllm
