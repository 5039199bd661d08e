// SPDX-License-Identifier: Apache-2.0
#include "run_tasks.hpp"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/paths.hpp"
#include "fsllm/eval/task_work.hpp"
#include "fsllm/io/checksum.hpp"
#include "ready_shards.hpp"
#include "task_record.hpp"
#include "task_run.hpp"

namespace fsllm {
namespace {

/// What a reader of a line needs of a task: its first row.
std::map<std::string, double> metrics_of(TaskOutcome const& outcome) {
  std::map<std::string, double> metrics;
  for (auto const& metric : outcome.rows.front().metrics) metrics[metric.kind.key()] = metric.value;
  return metrics;
}

std::string summary_of(std::vector<TaskOutcome> const& outcomes) {
  std::vector<std::string> parts;
  for (auto const& outcome : outcomes)
    for (auto const& metric : outcome.rows.front().metrics)
      parts.push_back(fmt::format("{} {} {:.4f}", outcome.task->name, metric.kind.name, metric.value));
  return fmt::format("{}", fmt::join(parts, ", "));
}

/// Tasks have the same bits with one thread alone.
class OneThread {
 public:
  OneThread() { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }
  OneThread(OneThread const&) = delete;
  OneThread& operator=(OneThread const&) = delete;

 private:
  int before_ = at::get_num_threads();
};

}  // namespace

RunTasksConfig load_run_tasks(Config& config, std::string const& data_root) {
  RunTasksConfig c;
  auto const names =
      config.get<std::vector<std::string>>("eval.tasks", {},
                                           "Tasks that the global model is put to: the names and files of "
                                           "fsllm_eval --tasks (docs/EVALUATION.md).");
  auto const data = get_path(config, "eval.task_data", "",
                             "Folder that holds mmlu/, gsm8k/, ... for eval.tasks; empty: data.root.");
  c.data = data.empty() ? data_root : data;
  c.limit =
      config.get<int64_t>("eval.task_limit", 0,
                          "First items of each of eval.tasks (MMLU: of each subject); 0: all.", at_least(0));
  auto const shots = config.get<int64_t>(
      "eval.task_shots", -1, "Examples before each question of eval.tasks; -1: the task's own number.",
      at_least(-1));
  if (shots >= 0) c.shots = shots;
  c.freq = config.get<int64_t>("eval.task_freq", 0,
                               "Rounds between evaluations of eval.tasks; 0: at the end of the run alone.",
                               at_least(0));
  if (!names.empty())
    c.names = task_names(fmt::format("{}", fmt::join(names, ",")), config.where("eval.tasks"));
  return c;
}

void check_run_tasks(RunConfig const& run, Config const& config) {
  if (run.tasks.names.empty()) return;
  auto const refuse = [&](bool refused, std::string const& with, char const* why) {
    FSLLM_CHECK(!refused,
                "{} with {} ({}). Leave one of them out; fsllm_eval --tasks scores what a run wrote.",
                config.where("eval.tasks"), with, why);
  };
  auto const& algorithm = run.fed.algorithm;
  refuse(algorithm.personal && !algorithm.keeps_model, "federate.method = " + run.fed.method,
         "it leaves no global model, which tasks are put to");
  refuse(run.offsite.use, "llm.offsite_tuning.use = True", "rank 0 alone has the model that would be judged");
  refuse(run.group.ranks > 1, fmt::format("hpc.ranks_per_client = {}", run.group.ranks),
         "tasks are shared by ranks that each have a whole model");
}

RunTasks::RunTasks(Setup const& s, Communicator const& comm) : s_(s) {
  auto const& config = s.run.tasks;
  if (config.names.empty()) return;
  auto const prompt = template_of_rows(s, comm);
  agree(comm, [&] {
    FSLLM_CHECK(
        s.tokenizer() != nullptr,
        "{} ({} holds no tokenizer, and tasks are texts). Put tokenizer.json or tokenizer.model there.",
        s.config->where("eval.tasks"), s.model_dir.string());
    TaskOptions options{config.data, config.limit, config.shots,
                        make_prompt_template(prompt.value_or(TemplateConfig{}))};
    options.shots_option = s.config->where("eval.task_shots");
    if (options.prompt.chat) options.tokenizer = s.tokenizer();
    job_ = {s.full_model_dir, {{"model", ""}}, config.names, options, s.load, 2048, ""};
    for (auto const& name : config.names) {
      tasks_.push_back(make_task(name, options));
      TaskWork const work(*tasks_.back(), s.model, *s.tokenizer());
    }
  });
  for (auto const& task : tasks_) {
    auto const problem = problem_of(*task, comm);
    agree(comm, [&] {
      FSLLM_CHECK(
          problem.empty(),
          "{}: {} cannot be judged here ({}). Leave it out, or run fsllm_eval --tasks {} where it can.",
          s.config->where("eval.tasks"), task->name, problem, task->name);
    });
  }
  if (s.run.fed.algorithm.personal || s.run.fed.finetune)
    log_info("eval.tasks are put to the global model; what clients make of it is judged by their own rows");
}

std::string RunTasks::identity_of_values(TensorMap const& values) const {
  auto text = identity_of(job_, job_.candidates.front());
  for (auto const& key : s_.config->given_keys())
    if (key.starts_with("llm.adapter")) text += key + " " + s_.config->text(key).value_or("") + "\n";
  for (auto const& [name, tensor] : values) {
    auto const bytes = tensor.detach().cpu().contiguous();
    auto const sum = checksum64({static_cast<std::byte const*>(bytes.const_data_ptr()), bytes.nbytes()});
    text += fmt::format("{} {:016x}\n", name, sum);
  }
  return text;
}

std::optional<TaskMetrics> RunTasks::examine(CausalLM& model, TensorMap const& values, int64_t round,
                                             Communicator const& comm) {
  OneThread const one_thread;
  job_.folder = fmt::format("tasks/round_{:06d}/", round);
  auto* const out = s_.output.get();
  auto const identity = identity_of_values(values);
  CandidateOutcome outcome{job_.candidates.front().name, "", {}, {}};
  TaskMetrics metrics;
  for (auto const& task : tasks_) {
    Examinee const examinee{fmt::format("round {}: {}", round, task->name), job_.folder, identity, model,
                            *s_.tokenizer()};
    auto done = do_task(task, examinee, job_, comm, out);
    if (!done) return std::nullopt;
    metrics[task->name] = metrics_of(*done);
    outcome.tasks.push_back(std::move(*done));
  }
  agree(comm, [&] {
    if (out == nullptr) return;
    write_task_results(job_, {outcome}, *out);
    log_info("tasks after round {}: {} (answers in {})", round, summary_of(outcome.tasks),
             (out->root() / job_.folder).string());
  });
  return metrics;
}

}  // namespace fsllm
