// SPDX-License-Identifier: Apache-2.0
#include "fsllm/sweep/sweep.hpp"

#include <cstdlib>
#include <limits>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/sweep/halving.hpp"

namespace fsllm {
namespace {

constexpr char const* kRounds = "federate.total_round_num";

/// federate.total_round_num of each setting.
std::vector<int64_t> full_rounds(SweepSpec const& spec, std::vector<Setting> const& settings) {
  std::vector<int64_t> rounds(settings.size(), spec.base_rounds);
  for (size_t s = 0; s < settings.size(); ++s)
    for (auto const& [key, value] : assignments(settings[s]))
      if (key == kRounds) rounds[s] = std::atoll(value.text.c_str());
  return rounds;
}

}  // namespace

Sweep::Sweep(SweepSpec spec_) : spec(std::move(spec_)) {
  refresh();
}

void Sweep::refresh() {
  if (settings.empty() || spec.bayes) {
    settings = settings_of(spec);
    runs = runs_of(spec, settings);
    rounds = full_rounds(spec, settings);
  }
  if (!spec.halving) return;
  rounds = rounds_allowed(*spec.halving, settings.size(), [&](size_t setting, int64_t done) {
    return score(setting, spec.halving->metric.path, done);
  });
}

std::optional<double> Sweep::score(size_t setting, std::string const& metric, int64_t rounds_done) const {
  double sum = 0;
  for (size_t i = 0; i < spec.seeds.size(); ++i) {
    auto const& run = runs[setting * spec.seeds.size() + i];
    auto const value = metric_after(run, metric, rounds_done);
    if (!value) {
      FSLLM_CHECK(
          !is_done(run, rounds_done),
          "{} has no number {} after round {} (the metric that the search follows). Name a metric of its "
          "summary.json, evaluated every round (eval.freq).",
          run.dir.string(), metric, rounds_done);
      if (state_of(spec, run, rounds_done) != RunState::failed) return {};
      return std::numeric_limits<double>::quiet_NaN();
    }
    sum += *value;
  }
  return sum / static_cast<double>(spec.seeds.size());
}

std::vector<std::string> run_command(Sweep const& sweep, SweepRun const& run, RunOptions const& options) {
  std::vector<std::string> words;
  if (options.ranks > 1) {
    words = options.launcher;
    words.push_back(std::to_string(options.ranks));
  }
  words.push_back(options.program.string());
  if (std::filesystem::exists(run.dir / "config.yaml")) words.push_back("--resume");
  words.insert(words.end(), {"--cfg", sweep.spec.base});
  for (auto const& [key, value] : assignments(sweep.settings[run.setting]))
    words.push_back(key + "=" + value.text);
  if (sweep.spec.halving) words.push_back(fmt::format("{}={}", kRounds, sweep.rounds[run.setting]));
  words.push_back(fmt::format("seed={}", run.seed));
  words.push_back("outdir=" + sweep.spec.outdir);
  words.push_back("expname=" + run.name);
  return words;
}

}  // namespace fsllm
