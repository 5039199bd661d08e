// SPDX-License-Identifier: Apache-2.0
// The rounds of metrics.jsonl as TensorBoard's event file.
#include "fsllm/fed/curves.hpp"

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fsllm/io/files.hpp"
#include "fsllm/io/tensorboard.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;

/// Numbers of an event that have a curve: where they stand, and its name.
std::vector<std::pair<Json::json_pointer, std::string>> const& named_curves() {
  static auto const table = [] {
    std::vector<std::pair<Json::json_pointer, std::string>> rows;
    auto const add = [&](std::string const& path, std::string const& tag) {
      rows.emplace_back(Json::json_pointer(path), tag);
    };
    for (std::string const part : {"train", "val", "test", "val_unseen", "test_unseen"})
      for (std::string const value : {"loss_per_token", "loss_per_pair", "reward_accuracy", "reward_margin",
                                      "fairness/worst_10_percent", "skipped_steps", "loss_scale"})
        add("/" + part + "/" + value, part + "/" + value.substr(value.rfind('/') + 1));
    add("/train/quantiles/update_norm/p50", "train/update_norm_median");
    add("/tokens_per_second", "train/tokens_per_second");
    add("/aggregation_error", "train/aggregation_error");
    add("/asyn/staleness/mean", "train/staleness_mean");
    for (std::string const phase : {"train", "aggregate", "evaluate"})
      add("/seconds/" + phase, "seconds/" + phase);
    for (std::string const name : {"peak_rss_bytes", "device_bytes"}) add("/" + name, "memory/" + name);
    for (std::string const name : {"bytes_up", "bytes_down", "bytes_in_groups"})
      add("/" + name, "comm/" + name);
    return rows;
  }();
  return table;
}

}  // namespace

std::string curve_records(Json const& event, double wall_time) {
  auto const kind = event.value("event", "");
  auto const number = event.find("round");
  if (number == event.end() || !number->is_number_integer()) return "";
  auto const round = number->get<int64_t>();
  std::string records;
  auto const add = [&](std::string const& tag, Json const& value) {
    if (value.is_number()) records += event_record({tag, round, value.get<double>(), wall_time});
  };
  if (kind == "start" || kind == "round") {
    for (auto const& [path, tag] : named_curves())
      if (event.contains(path)) add(tag, event.at(path));
  } else if (kind == "tasks" && event.contains("tasks")) {
    for (auto const& [task, metrics] : event.at("tasks").items())
      for (auto const& [metric, value] : metrics.items()) add("tasks/" + task + "/" + metric, value);
  }
  return records;
}

std::string curves_of_run(RunDirectory const& run, double now) {
  std::map<int64_t, double> times;  // by round
  auto const for_each = [](std::filesystem::path const& file, auto const& take) {
    if (!std::filesystem::exists(file)) return;
    std::istringstream lines(read_file(file));
    for (std::string line; std::getline(lines, line);)
      if (auto const event = Json::parse(line, nullptr, false); event.is_object()) take(event);
  };
  for_each(run.rank_metrics(), [&](Json const& line) {
    if (line.contains("time") && line.at("time").is_number())
      times[line.value("round", int64_t{0})] = line.at("time").get<double>();
  });
  auto const time_of = [&](int64_t round) { return times.contains(round) ? times.at(round) : now; };
  auto const file = run.root / RunDirectory::kCurves;
  auto const began = std::filesystem::exists(file) ? time_of_event_file(read_file(file)) : std::nullopt;
  std::string bytes = event_file_header(began.value_or(now));
  for_each(run.metrics(), [&](Json const& event) {
    if (event.contains("round") && event.at("round").is_number_integer())
      bytes += curve_records(event, time_of(event.at("round").get<int64_t>()));
  });
  return bytes;
}

}  // namespace fsllm
