// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/evaluate_tasks.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "fsllm/app/adapter_info.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/comm/gather.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/progress.hpp"
#include "fsllm/eval/task_work.hpp"
#include "fsllm/io/files.hpp"
#include "task_record.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// Logits of a few tokens, which an adapter that does anything changes.
at::Tensor probe(CausalLM& model) {
  at::NoGradGuard const no_grad;
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < std::min<int64_t>(16, model.config().max_positions); ++i)
    ids.push_back((7 + 37 * i) % model.config().vocab_size);
  RaggedInput input{at::tensor(ids, at::kLong), {0, static_cast<int64_t>(ids.size())}};
  auto const pass = model.pass(input);
  return model.logits(model.hidden_states(input.ids, pass), pass);
}

std::vector<std::string> notes_on_base(Candidate const& candidate, fs::path const& model_dir,
                                       Tokenizer const* tokenizer) {
  std::vector<std::string> notes;
  auto const info = read_adapter_info(candidate.adapter);
  if (!info) return notes;
  if (!info->base_model.empty() && fs::weakly_canonical(info->base_model) != fs::weakly_canonical(model_dir))
    notes.push_back(fmt::format("{} was trained on the model {}, and is scored on {}", candidate.name,
                                info->base_model, model_dir.string()));
  if (tokenizer != nullptr && !info->tokenizer_sha256.empty() &&
      info->tokenizer_sha256 != tokenizer->sha256())
    notes.push_back(fmt::format("{} was trained with another tokenizer", candidate.name));
  return notes;
}

/// Puts the candidate's adapter in place; what its scores must not hide.
std::vector<std::string> use_candidate(Candidate const& candidate, TaskJob const& job,
                                       ModelSession& session) {
  session.use(0);
  std::vector<std::string> notes;
  if (!candidate.adapter.empty()) {
    auto const alone = probe(session.model());
    use_adapter(session, candidate.adapter);
    notes = notes_on_base(candidate, job.model_dir, session.tokenizer().get());
    auto const adapted = probe(session.model());
    if (alone.sizes() == adapted.sizes() && at::equal(alone, adapted))
      notes.push_back(fmt::format(
          "{} changes nothing: with it the model computes what it computes alone (in LoRA, B is zero), so "
          "these are the scores of the model alone",
          candidate.name));
  }
  FSLLM_CHECK(session.tokenizer() != nullptr,
              "{} holds no tokenizer (tasks are texts). Put tokenizer.json or tokenizer.model there.",
              job.model_dir.string());
  for (auto const& note : notes) log_warning("{}", note);
  return notes;
}

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

/// Collective: on every rank.
std::vector<ItemAnswer> answer_task(EvalTask const& task, ModelSession& session, TaskJob const& job,
                                    std::string const& title, Communicator const& comm) {
  std::unique_ptr<TaskWork> work;
  RequestResults results;
  agree(comm, [&] {
    set_activity("answering " + title);
    work = std::make_unique<TaskWork>(task, session.model().config(), *session.tokenizer());
    Progress progress(title, work->rows(), "rows", comm.rank() == 0);
    results = work->compute(session.model(), job.batch_tokens, {comm.rank(), comm.size()},
                            [&](int64_t rows) { progress.advance(rows); });
  });
  return work->answers({all_gather(results.scores, comm), all_gather(results.tokens, comm)});
}

/// Collective: the first rank's reason why answers cannot be judged.
std::string problem_of(EvalTask const& task, Communicator const& comm) {
  std::string mine;
  agree(comm, [&] { mine = task.cannot_judge(); });
  for (auto const& problem : comm.all_gather(mine))
    if (!problem.empty()) return problem;
  return "";
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

/// Collective.
TaskOutcome do_task(std::shared_ptr<EvalTask const> const& task, Candidate const& candidate,
                    ModelSession& session, TaskJob const& job, Communicator const& comm, OutputFolder* out) {
  auto const title = candidate.name + ": " + task->name;
  auto const prefix = task_prefix(job, candidate.name);
  std::string settings;
  agree(comm, [&] { settings = task_settings(job, candidate, *task); });
  auto done = look_up(out, prefix, *task, settings, comm);
  if (done) {
    log_info("{}: kept from a call before (the same model, adapter, items and settings)", title);
  } else {
    auto const answers = answer_task(*task, session, job, title, comm);
    auto const lines = task->answer_lines(answers);
    agree(comm, [&] {
      if (out != nullptr && !lines.empty()) out->write(prefix + task->name + "_answers.jsonl", lines);
    });
    if (auto const problem = problem_of(*task, comm); !problem.empty()) return {task, {}, 0, 0, problem};
    set_activity("judging " + title);
    done = with_counts(judge(*task, answers, comm), answers);
    agree(comm, [&] {
      if (out != nullptr) keep_task(*out, prefix, *task, settings, *done, answers);
    });
  }
  say_what_was_cut(title, *task, *done, session.model().config().max_positions);
  return {task, task->report(done->scores), done->shortened, done->cut, ""};
}

std::vector<std::shared_ptr<EvalTask const>> tasks_of(TaskJob const& job, Candidate const& candidate) {
  auto options = job.options;
  options.prompt = make_prompt_template(candidate.prompt);
  std::unique_ptr<Tokenizer> tokenizer;
  if (options.prompt.chat) tokenizer = load_tokenizer(tokenizer_source(job.model_dir, candidate.adapter));
  options.tokenizer = tokenizer.get();
  std::vector<std::shared_ptr<EvalTask const>> tasks;
  for (auto const& name : job.tasks) tasks.push_back(make_task(name, options));
  return tasks;
}

}  // namespace

std::vector<CandidateOutcome> evaluate_tasks(TaskJob const& job, Communicator const& comm,
                                             OutputFolder* out) {
  at::set_num_threads(1);
  std::vector<CandidateOutcome> outcomes;
  std::vector<std::vector<std::shared_ptr<EvalTask const>>> tasks;
  std::unique_ptr<ModelSession> session;
  agree(comm, [&] {
    for (auto const& candidate : job.candidates) {
      if (!candidate.adapter.empty()) read_adapter_config(candidate.adapter);
      tasks.push_back(tasks_of(job, candidate));
    }
    set_activity("loading the model");
    session = std::make_unique<ModelSession>(job.model_dir, job.load);
  });
  for (size_t c = 0; c < job.candidates.size(); ++c) {
    auto const& candidate = job.candidates[c];
    CandidateOutcome outcome{candidate.name, candidate.adapter.string(), {}, {}};
    agree(comm, [&] { outcome.notes = use_candidate(candidate, job, *session); });
    for (auto const& task : tasks[c])
      outcome.tasks.push_back(do_task(task, candidate, *session, job, comm, out));
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

}  // namespace fsllm
