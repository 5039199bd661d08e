// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "fsllm/app/evaluate_tasks.hpp"

namespace fsllm {

/// What was scored of a task: kept in the out folder, so that a job that was killed goes on behind it.
struct TaskScores {
  std::vector<ItemScore> scores;
  int64_t shortened = 0, cut = 0;
};

/// What tells the model with an adapter from any other.
std::string identity_of(TaskJob const& job, Candidate const& candidate);
/// SHA-256 of all that scores depend on: the model's identity, types, batches and every item.
std::string task_settings(TaskJob const& job, std::string const& identity, EvalTask const& task);

/// Writes samples_TASK.jsonl, an item a line, and then the entry of the task in tasks.json.
void keep_task(OutputFolder& out, std::string const& prefix, EvalTask const& task,
               std::string const& settings, TaskScores const& done, std::vector<ItemAnswer> const& answers);
/// What keep_task() wrote, if the settings are the same and the file is whole.
std::optional<TaskScores> kept_task(OutputFolder const& out, std::string const& prefix, EvalTask const& task,
                                    std::string const& settings);

/// Scores as text between ranks and from files.
std::string to_text(std::vector<ItemScore> const& scores);
std::vector<ItemScore> scores_from_text(std::string const& text);

}  // namespace fsllm
