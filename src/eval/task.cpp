// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/task.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {

std::vector<Row<TaskKind>> const& task_table() {
  static std::vector<Row<TaskKind>> const table = {
      {"mmlu", {mmlu_task}, "57 subjects, multiple choice, 5-shot (Hendrycks et al. 2021)"},
      {"flowertune_general_nlp", {flowertune_task}, "FlowerTune's protocol on three groups of MMLU"},
      {"gsm8k", {gsm8k_task}, "grade-school mathematics, 8-shot chain of thought (Cobbe et al. 2021)"},
      {"dolly", {dolly_task, true}, "instructions by category, ROUGE-L (Conover et al. 2023)"},
      {"code_search_net", {code_search_net_task}, "code that belongs to a text, 5-shot (Husain et al. 2019)"},
      {"cosqa", {cosqa_task}, "the same of web queries (Huang et al. 2021)"},
      {"humaneval",
       {humaneval_task},
       "Python functions that must pass their tests, pass@k (Chen et al. 2021)"},
      {"lambada", {lambada_task}, "the last word of a passage (Paperno et al. 2016)"},
  };
  return table;
}

bool ask_instructions(std::vector<std::string> const& names) {
  return std::ranges::any_of(task_table(), [&](auto const& row) {
    return row.build.asks_instructions && std::ranges::find(names, row.name) != names.end();
  });
}

std::string TaskItem::prompt(size_t dropped) const {
  std::string text;
  if (examples) {
    text = examples->heading;
    for (size_t i = dropped; i < examples->shots.size(); ++i) text += examples->shots[i];
  }
  return text + question;
}

std::vector<ReportRow> EvalTask::report(std::vector<ItemScore> const& scores) const {
  return mean_rows(name, metrics, items, scores);
}

size_t limited(size_t items, TaskOptions const& options) {
  auto const limit = static_cast<size_t>(options.limit);
  return limit == 0 ? items : std::min(items, limit);
}

int64_t shots_of(TaskOptions const& options, std::string const& task, int64_t own, int64_t available) {
  auto const shots = options.shots.value_or(std::min(own, available));
  FSLLM_CHECK(shots <= available, "{} {} ({} has {} examples). Write {} {}.", options.shots_option, shots,
              task, available, options.shots_option, available);
  return shots;
}

std::vector<std::string> task_names(std::string const& list, std::string const& option) {
  std::vector<std::string> names;
  for (size_t at = 0; at <= list.size();) {
    auto const end = std::min(list.find(',', at), list.size());
    auto name = list.substr(at, end - at);
    at = end + 1;
    FSLLM_CHECK(!name.empty(), "{} {} (a name is missing between commas). Write it out.", option, list);
    if (!is_own_task(name)) find_row(task_table(), name, option);
    auto const label = task_label(name);
    FSLLM_CHECK(std::ranges::count(names, label, task_label) == 0,
                "{} {} ({} stands there twice). Write it once, or rename a file.", option, list, label);
    names.push_back(std::move(name));
  }
  return names;
}

std::string task_label(std::string const& name) {
  return is_own_task(name) ? std::filesystem::path(name).stem().string() : name;
}

std::unique_ptr<EvalTask> make_task(std::string const& name, TaskOptions const& options) {
  if (is_own_task(name)) return own_task(name, options);
  return find_row(task_table(), name, "--tasks").build.make(options);
}

}  // namespace fsllm
