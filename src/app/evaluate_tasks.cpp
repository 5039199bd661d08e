// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/evaluate_tasks.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/app/adapter_info.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/jsonl.hpp"
#include "probe.hpp"
#include "task_record.hpp"
#include "task_run.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// The model's name that the adapter's own adapter_config.json gives, "" for none.
std::string named_base(fs::path const& adapter) {
  auto const config = read_json(adapter / "adapter_config.json");
  auto const name = config.find("base_model_name_or_path");
  return name != config.end() && name->is_string() ? name->get<std::string>() : "";
}

std::string folder_name(fs::path const& path) {
  auto const whole = fs::weakly_canonical(path);
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

std::vector<std::string> notes_on_base(Candidate const& candidate, fs::path const& model_dir,
                                       Tokenizer const* tokenizer) {
  std::vector<std::string> notes;
  auto const info = read_adapter_info(candidate.adapter);
  if (!info) {
    auto const base = named_base(candidate.adapter);
    if (!base.empty() && folder_name(base) != folder_name(model_dir))
      notes.push_back(fmt::format("{} names the model {} as its own, and is scored on {}", candidate.name,
                                  base, model_dir.string()));
    return notes;
  }
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
    auto const alone = probe_logits(session.model());
    use_adapter(session, candidate.adapter);
    notes = notes_on_base(candidate, job.model_dir, session.tokenizer().get());
    auto const adapted = probe_logits(session.model());
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
    auto const identity = identity_of(job, candidate);
    for (auto const& task : tasks[c]) {
      Examinee const examinee{candidate.name + ": " + task->name, task_prefix(job, candidate.name), identity,
                              session->model(), *session->tokenizer()};
      outcome.tasks.push_back(do_task(task, examinee, job, comm, out).value());
    }
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

}  // namespace fsllm
