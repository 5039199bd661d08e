// SPDX-License-Identifier: Apache-2.0
#include "task_run.hpp"

#include "fsllm/app/program.hpp"
#include "fsllm/comm/gather.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/progress.hpp"
#include "fsllm/eval/task_work.hpp"
#include "kept_answers.hpp"
#include "task_record.hpp"

namespace fsllm {
namespace {

/// A signal came between two batches.
struct Stopped {};

/// Collective: what rank 0 found in the out folder, on every rank.
std::optional<TaskScores> look_up(OutputFolder const* out, std::string const& prefix, EvalTask const& task,
                                  std::string const& settings, Communicator const& comm) {
  std::string found;
  std::optional<TaskScores> kept;
  agree(comm, [&] {
    if (out != nullptr) kept = kept_task(*out, prefix, task, settings);
    if (kept) found = fmt::format("{} {} {}", kept->shortened, kept->cut, to_text(kept->scores));
  });
  found = comm.all_gather(found).front();
  if (found.empty()) return std::nullopt;
  auto const first = found.find(' '), second = found.find(' ', first + 1);
  return TaskScores{scores_from_text(found.substr(second + 1)), std::stoll(found),
                    std::stoll(found.substr(first + 1))};
}

/// Collective: each rank judges a share of the answers; all get all scores.
std::vector<ItemScore> judge(EvalTask const& task, std::vector<ItemAnswer> const& answers,
                             Communicator const& comm) {
  auto const rank = static_cast<size_t>(comm.rank()), size = static_cast<size_t>(comm.size());
  std::vector<ItemScore> mine, all(answers.size());
  agree(comm, [&] {
    for (size_t i = rank; i < answers.size(); i += size) mine.push_back(task.score(i, answers[i]));
  });
  auto const parts = comm.all_gather(to_text(mine));
  for (size_t r = 0; r < parts.size(); ++r) {
    auto scores = scores_from_text(parts[r]);
    for (size_t k = 0; k < scores.size(); ++k) all[r + k * size] = std::move(scores[k]);
  }
  return all;
}

void say_what_is_kept(std::string const& title, KeptAnswers const& kept, int64_t rows) {
  if (kept.rows() > 0)
    log_info("{}: {} of {} rows were computed by a call before, {} are left", title, kept.rows(), rows,
             rows - kept.rows());
}

/// Collective: on every rank; none where a signal stopped one of them.
std::optional<std::vector<ItemAnswer>> answer_task(EvalTask const& task, Examinee const& examinee,
                                                   TaskJob const& job, KeptAnswers& kept,
                                                   Communicator const& comm) {
  std::unique_ptr<TaskWork> work;
  RequestResults results;
  bool stopped = false;
  agree(comm, [&] {
    set_activity("answering " + examinee.title);
    work = std::make_unique<TaskWork>(task, examinee.model.config(), examinee.tokenizer);
    say_what_is_kept(examinee.title, kept, work->rows());
    Progress progress(examinee.title, work->rows() - kept.rows(), "rows", comm.rank() == 0);
    auto const finished = [&](FinishedBatch const& batch, int64_t rows_over) {
      kept.add(batch);
      progress.advance(rows_over);
      if (interrupted()) throw Stopped();
    };
    try {
      results =
          work->compute(examinee.model, job.batch_tokens, comm.rank(), comm.size(), kept.batches(), finished);
    } catch (Stopped const&) {
      stopped = true;
    }
  });
  if (comm.any(stopped)) return std::nullopt;
  RequestResults all{all_gather(results.scores, comm), all_gather(results.tokens, comm)};
  for (auto const& batch : kept.batches()) {
    all.scores.insert(all.scores.end(), batch.scores.begin(), batch.scores.end());
    all.tokens.insert(all.tokens.end(), batch.tokens.begin(), batch.tokens.end());
  }
  return work->answers(all);
}

TaskScores with_counts(std::vector<ItemScore> scores, std::vector<ItemAnswer> const& answers) {
  TaskScores done{std::move(scores)};
  for (auto const& answer : answers) {
    done.shortened += answer.dropped_shots > 0 ? 1 : 0;
    done.cut += answer.is_cut ? 1 : 0;
  }
  return done;
}

void say_what_was_cut(std::string const& title, EvalTask const& task, TaskScores const& done,
                      int64_t positions) {
  if (done.shortened > 0)
    log_info("{}: {} of {} prompts have fewer than {} examples (the model has {} positions)", title,
             done.shortened, task.items.size(), task.shots, positions);
  if (done.cut > 0)
    log_warning("{}: {} of {} prompts lost their beginning (the model has {} positions)", title, done.cut,
                task.items.size(), positions);
}

}  // namespace

std::string problem_of(EvalTask const& task, Communicator const& comm) {
  std::string mine;
  agree(comm, [&] { mine = task.cannot_judge(); });
  for (auto const& problem : comm.all_gather(mine))
    if (!problem.empty()) return problem;
  return "";
}

std::optional<TaskOutcome> do_task(std::shared_ptr<EvalTask const> const& task, Examinee const& examinee,
                                   TaskJob const& job, Communicator const& comm, OutputFolder* out) {
  auto const &title = examinee.title, &prefix = examinee.prefix;
  auto const settings = task_settings(job, examinee.identity, *task);
  KeptAnswers kept(out, prefix + task->name, settings, comm);
  auto done = look_up(out, prefix, *task, settings, comm);
  if (done) {
    log_info("{}: kept from a call before (the same model, adapter, items and settings)", title);
  } else {
    auto const answers = answer_task(*task, examinee, job, kept, comm);
    if (!answers) return std::nullopt;
    auto const lines = task->answer_lines(*answers);
    agree(comm, [&] {
      if (out != nullptr && !lines.empty()) out->write(prefix + task->name + "_answers.jsonl", lines);
    });
    if (auto const problem = problem_of(*task, comm); !problem.empty()) {
      kept.remove(comm);
      return TaskOutcome{task, {}, 0, 0, problem};
    }
    set_activity("judging " + title);
    done = with_counts(judge(*task, *answers, comm), *answers);
    agree(comm, [&] {
      if (out != nullptr) keep_task(*out, prefix, *task, settings, *done, *answers);
    });
  }
  kept.remove(comm);
  say_what_was_cut(title, *task, *done, examinee.model.config().max_positions);
  return TaskOutcome{task, task->report(done->scores), done->shortened, done->cut, ""};
}

}  // namespace fsllm
