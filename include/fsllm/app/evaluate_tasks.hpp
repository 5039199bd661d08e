// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fsllm/app/evaluate.hpp"
#include "fsllm/eval/task.hpp"

namespace fsllm {

struct TaskJob {
  std::filesystem::path model_dir;
  std::vector<Candidate> candidates;
  std::vector<std::string> tasks;  ///< task_names()
  TaskOptions options;
  LoadOptions load;
  int64_t batch_tokens = 2048;
  std::string folder = {};  ///< "" or "FOLDER/", below the folder of results
};

/// What one candidate did in one task.
struct TaskOutcome {
  std::shared_ptr<EvalTask const> task;
  std::vector<ReportRow> rows;
  int64_t shortened = 0;  ///< prompts that lost examples
  int64_t cut = 0;        ///< prompts that lost their beginning even without examples
  std::string unjudged;   ///< why there are no rows: this machine cannot judge the answers
};

struct CandidateOutcome {
  std::string name;
  std::string adapter;             ///< folder, "" for none
  std::vector<std::string> notes;  ///< what a reader of its scores must know
  std::vector<TaskOutcome> tasks;
};

/// Collective: every candidate does every task; the same bits for any number of ranks, which share the
/// batches. A task whose answers this machine cannot judge has its answers written, and no rows. Rank 0
/// writes into `out` (null on other ranks) what is done with each task, and takes from it what a call before
/// with the same model, adapter, items and settings has done.
std::vector<CandidateOutcome> evaluate_tasks(TaskJob const& job, Communicator const& comm, OutputFolder* out);

/// Prefix of a candidate's files: none where it is the only one.
std::string task_prefix(TaskJob const& job, std::string const& candidate);
/// All files of a job, for OutputFolder::check_free.
std::vector<std::string> task_files(TaskJob const& job);

/// results.json of each candidate in lm-evaluation-harness' layout; results.md and results.csv of all.
void write_task_results(TaskJob const& job, std::vector<CandidateOutcome> const& outcomes, OutputFolder& out);
/// The table of results.md; without `subtasks`, only tasks and their groups.
std::string task_table_text(std::vector<CandidateOutcome> const& outcomes, bool subtasks);

}  // namespace fsllm
