// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/app/evaluate_tasks.hpp"
#include "fsllm/core/csv_field.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

using nlohmann::ordered_json;

std::string dumped(ordered_json const& json) {
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

ordered_json row_json(ReportRow const& row) {
  ordered_json entry{{"alias", row.alias}};
  for (auto const& metric : row.metrics) {
    auto const& [name, filter] = std::pair(metric.kind.name, metric.kind.filter);
    entry[metric.kind.key()] = metric.value;
    entry[name + "_stderr," + filter] = metric.error ? ordered_json(*metric.error) : ordered_json("N/A");
    if (metric.low) entry[name + "_low95," + filter] = *metric.low;
    if (metric.high) entry[name + "_high95," + filter] = *metric.high;
    if (metric.constant) entry[name + "_constant," + filter] = *metric.constant;
  }
  return entry;
}

bool has_parts(std::vector<ReportRow> const& rows, size_t i) {
  return i + 1 < rows.size() && rows[i].level < rows.back().level;
}

/// Rows that a row is the sum of: those of the next level that its items count in.
ordered_json parts_of(EvalTask const& task, ReportRow const& row) {
  ordered_json parts = ordered_json::array();
  auto const level = static_cast<size_t>(row.level);
  for (auto const& item : task.items) {
    if (item.groups.size() <= level || (level > 0 && item.groups[level - 1] != row.name)) continue;
    auto const& part = item.groups[level];
    if (std::ranges::find(parts, ordered_json(part)) == parts.end()) parts.push_back(part);
  }
  return parts;
}

void add_task(ordered_json& results, TaskOutcome const& outcome, TaskJob const& job) {
  auto const& task = *outcome.task;
  for (size_t i = 0; i < outcome.rows.size(); ++i) {
    auto const& row = outcome.rows[i];
    results["results"][row.name] = row_json(row);
    if (has_parts(outcome.rows, i)) {
      results["groups"][row.name] = row_json(row);
      results["group_subtasks"][row.name] = parts_of(task, row);
    }
    results["versions"][row.name] = task.version;
    results["n-shot"][row.name] = task.shots;
    for (auto const& metric : row.metrics)
      results["higher_is_better"][row.name][metric.kind.name] = metric.kind.higher_is_better;
    results["n-samples"][row.name]["effective"] = row.items;
    if (job.options.limit == 0) results["n-samples"][row.name]["original"] = row.items;
  }
  results["configs"][task.name] = {{"task", task.name},          {"description", task.about},
                                   {"num_fewshot", task.shots},  {"prompts_shortened", outcome.shortened},
                                   {"prompts_cut", outcome.cut}, {"metadata", {{"version", task.version}}}};
}

ordered_json results_of(TaskJob const& job, CandidateOutcome const& outcome) {
  ordered_json results{{"results", ordered_json::object()},          {"groups", ordered_json::object()},
                       {"group_subtasks", ordered_json::object()},   {"configs", ordered_json::object()},
                       {"versions", ordered_json::object()},         {"n-shot", ordered_json::object()},
                       {"higher_is_better", ordered_json::object()}, {"n-samples", ordered_json::object()}};
  for (auto const& task : outcome.tasks) add_task(results, task, job);
  auto arguments = "pretrained=" + job.model_dir.string();
  if (!outcome.adapter.empty()) arguments += ",peft=" + outcome.adapter;
  results["config"] = {{"model", "fsllm"},
                       {"model_args", arguments},
                       {"model_dtype", job.load.compute_dtype},
                       {"storage_dtype", job.load.storage_dtype},
                       {"limit", job.options.limit > 0 ? ordered_json(job.options.limit) : ordered_json()},
                       {"notes", outcome.notes}};
  return results;
}

/// The shortest text that reads back as the same number.
std::string exact(std::optional<double> const& value) {
  return value ? fmt::format("{}", *value) : "";
}

std::string csv_of(std::vector<CandidateOutcome> const& outcomes) {
  std::string lines =
      "model,task,version,shots,items,metric,filter,value,stderr,low95,high95,constant,prompts_shortened,"
      "prompts_cut\n";
  for (auto const& candidate : outcomes)
    for (auto const& task : candidate.tasks)
      for (auto const& row : task.rows)
        for (auto const& metric : row.metrics)
          lines += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", csv_field(candidate.name),
                               csv_field(row.name), task.task->version, task.task->shots, row.items,
                               csv_field(metric.kind.name), metric.kind.filter, metric.value,
                               exact(metric.error), exact(metric.low), exact(metric.high),
                               exact(metric.constant), task.shortened, task.cut);
  return lines;
}

std::string cell(std::optional<double> const& value) {
  return value ? fmt::format("{:.4f}", *value) : "";
}

}  // namespace

std::string task_prefix(TaskJob const& job, std::string const& candidate) {
  return job.folder + (job.candidates.size() == 1 ? "" : candidate + "/");
}

std::vector<std::string> task_files(TaskJob const& job) {
  std::vector<std::string> files{job.folder + "results.md", job.folder + "results.csv"};
  for (auto const& candidate : job.candidates) {
    auto const prefix = task_prefix(job, candidate.name);
    for (auto const* name : {"results.json", "tasks.json"}) files.push_back(prefix + name);
    for (auto const& task : job.tasks)
      for (auto const& name : {"samples_" + task_label(task), task_label(task) + "_answers"})
        files.push_back(prefix + name + ".jsonl");
  }
  return files;
}

std::string task_table_text(std::vector<CandidateOutcome> const& outcomes, bool subtasks) {
  std::string text;
  for (auto const& candidate : outcomes)
    for (auto const& note : candidate.notes) text += "Note: " + note + ".\n\n";
  text +=
      "| Model | Task | Items | Shots | Metric | Value | Stderr | 95 % interval | Constant answer |\n"
      "|---|---|---:|---:|---|---:|---:|---|---:|\n";
  for (auto const& candidate : outcomes)
    for (auto const& task : candidate.tasks)
      for (auto const& row : task.rows) {
        if (!subtasks && row.level > 1) continue;
        auto const alias =
            (row.level > 0 ? std::string(static_cast<size_t>(row.level), '-') + " " : "") + row.alias;
        for (auto const& metric : row.metrics)
          text +=
              fmt::format("| {} | {} | {} | {} | {} | {:.4f} | {} | {} | {} |\n", candidate.name, alias,
                          row.items, task.task->shots,
                          metric.kind.filter == "none" ? metric.kind.name
                                                       : metric.kind.name + " (" + metric.kind.filter + ")",
                          metric.value, cell(metric.error),
                          metric.low ? fmt::format("{:.4f} – {:.4f}", *metric.low, *metric.high) : "",
                          cell(metric.constant));
      }
  return text;
}

void write_task_results(TaskJob const& job, std::vector<CandidateOutcome> const& outcomes,
                        OutputFolder& out) {
  for (auto const& outcome : outcomes)
    out.write(task_prefix(job, outcome.name) + "results.json", dumped(results_of(job, outcome)));
  out.write(job.folder + "results.csv", csv_of(outcomes));
  out.write(job.folder + "results.md", task_table_text(outcomes, true));
}

}  // namespace fsllm
