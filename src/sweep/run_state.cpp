// SPDX-License-Identifier: Apache-2.0
#include "fsllm/sweep/run_state.hpp"

#include <cmath>
#include <fstream>
#include <sstream>

#include "fsllm/core/json_text.hpp"
#include "fsllm/io/folder_lock.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A file that another process may be replacing: null where it is not there or not JSON.
json read_if_json(fs::path const& file) {
  std::ifstream in(file);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (json_depth(text.str()) > kDeepestJson) return nullptr;
  auto parsed = json::parse(text.str(), nullptr, false);
  return parsed.is_discarded() ? json() : parsed;
}

bool has_failed(fs::path const& record) {
  auto const facts = read_if_json(record);
  return facts.is_object() && facts.value("state", "") == "failed";
}

int64_t whole_at(json const& event, char const* key) {
  auto const value = number_at(event, key);
  return value ? static_cast<int64_t>(*value) : 0;
}

}  // namespace

std::string name_of(RunState state) {
  switch (state) {
    case RunState::pending:
      return "pending";
    case RunState::running:
      return "running";
    case RunState::done:
      return "done";
    case RunState::failed:
      return "failed";
  }
  return "";
}

RunFiles files_of(SweepSpec const& spec, SweepRun const& run) {
  auto const base = spec.own_folder() / run.name;
  return {base.string() + ".lock", base.string() + ".log", base.string() + ".json"};
}

json summary_of(SweepRun const& run) {
  return read_if_json(run.dir / "summary.json");
}

bool is_done(SweepRun const& run, int64_t rounds) {
  auto const summary = summary_of(run);
  if (!summary.is_object()) return false;
  auto const early = summary.find("stopped_early");
  return whole_at(summary, "round") >= rounds ||
         (early != summary.end() && early->is_boolean() && early->get<bool>());
}

RunState state_of(SweepSpec const& spec, SweepRun const& run, int64_t rounds) {
  auto const files = files_of(spec, run);
  if (!lock_holder(files.lock).empty()) return RunState::running;
  if (is_done(run, rounds)) return RunState::done;
  return has_failed(files.record) ? RunState::failed : RunState::pending;
}

std::vector<json> events_of(SweepRun const& run) {
  std::vector<json> events;
  std::ifstream in(run.dir / "metrics.jsonl");
  for (std::string line; std::getline(in, line);)
    if (auto event = json::parse(line, nullptr, false); event.is_object())
      if (auto const name = event.value("event", ""); name == "start" || name == "round")
        events.push_back(std::move(event));
  return events;
}

std::vector<json> round_events(SweepRun const& run) {
  auto events = events_of(run);
  std::erase_if(events, [](json const& event) { return event.at("event") != "round"; });
  return events;
}

std::optional<double> number_at(json const& value, std::string const& path) {
  auto const* at = &value;
  std::istringstream names(path);
  for (std::string name; std::getline(names, name, '.');) {
    if (!at->is_object() || !at->contains(name)) return {};
    at = &(*at)[name];
  }
  if (!at->is_number() || !std::isfinite(at->get<double>())) return {};
  return at->get<double>();
}

std::optional<double> metric_after(SweepRun const& run, std::string const& path, int64_t rounds) {
  auto const events = round_events(run);
  for (auto const& event : events)
    if (whole_at(event, "round") == rounds) return number_at(event, path);
  if (is_done(run, rounds) && (events.empty() || whole_at(events.back(), "round") < rounds))
    return number_at(summary_of(run), path);
  return {};
}

RunCost cost_of(SweepRun const& run) {
  RunCost cost;
  for (auto const& event : round_events(run)) {
    ++cost.rounds;
    cost.bytes += whole_at(event, "bytes_up") + whole_at(event, "bytes_down");
    auto const seconds = event.find("seconds");
    for (auto const* phase : {"train", "aggregate", "evaluate"})
      if (seconds != event.end()) cost.seconds += number_at(*seconds, phase).value_or(0);
  }
  return cost;
}

}  // namespace fsllm
