// SPDX-License-Identifier: Apache-2.0
// Scores requests in the manner of lm-evaluation-harness with a model and an adapter; every rank takes a
// part.
#include <ATen/Parallel.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "fsllm/app/command_line.hpp"
#include "fsllm/app/evaluate.hpp"
#include "fsllm/app/evaluate_tasks.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/comm/gather.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/eval/requests.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/output_file.hpp"
#include "fsllm/model/dtype.hpp"

namespace {

using namespace fsllm;

std::string names_of_tasks() {
  std::string names;
  for (auto const& row : task_table()) names += (names.empty() ? "" : ", ") + row.name;
  return names;
}

Program const kProgram{
    "fsllm_eval",
    "Scores requests with a model and an adapter; runs under mpirun too.\n\n"
    "  fsllm_eval --model DIR [--adapter DIR] --requests IN.jsonl --responses OUT.jsonl\n"
    "  fsllm_eval --model DIR [--base] [--adapter [NAME=]DIR]... --tasks LIST --data DIR --out DIR\n"
    "  fsllm_eval --run DIR [--base] --out DIR\n",
    {{"model", "DIR", "model, Hugging Face layout or a .gguf file"},
     {"run", "DIR",
      "run directory: model, adapter, types and prompt template come from there, and the rows that it kept "
      "for its test, where nothing else is given"},
     {"adapter", "[NAME=]DIR", "PEFT adapter to score with; may be repeated with --tasks", "", true},
     {"tasks", "LIST|FILE.jsonl",
      "tasks with commas between them (docs/EVALUATION.md): " + names_of_tasks() +
          "; or one FILE.jsonl of rows with instruction, input and output: exact match and loss by category"},
     {"data", "DIR", "folder that holds mmlu/, gsm8k/, ...; or that of the file", "."},
     {"out", "DIR",
      "folder for results.json, results.md, results.csv and samples; finished tasks in there are not done "
      "again"},
     {"shots", "N", "examples before each question, where not the task's own number"},
     {"base", "", "score the model without an adapter too"},
     {"prompt_template", "NAME",
      "as data.prompt_template; the adapter's own, or alpaca, where it is left out"},
     {"limit", "N", "the first rows only (MMLU: of each subject); 0: all", "0"},
     {"examples", "N", "rows to print with their answers", "0"},
     {"requests", "FILE.jsonl", "one request a line: loglikelihood, loglikelihood_rolling or generate_until"},
     {"responses", "FILE.jsonl", "one answer a line, in the order of the requests"},
     {"dtype", "TYPE",
      "type of activations: fp32, bf16 or fp16; fp32, or as in the run, where it is left out"},
     {"storage_dtype", "TYPE",
      "type of the model's weights, as train.storage_dtype in the run: auto (as in the file), fp32, bf16, "
      "fp16, int8 or nf4; auto, or as in the run, where it is left out"},
     {"use_gpu", "auto|True|False", "as use_gpu of a run", "auto"},
     {"batch_tokens", "N", "tokens in one forward pass", "2048"}}};

/// Requests are scored with one adapter.
std::string the_adapter(std::vector<std::string> const& given) {
  if (given.empty()) return "";
  FSLLM_CHECK(given.size() == 1, "--adapter is given {} times (requests are scored with one). Give one.",
              given.size());
  return given.front();
}

std::vector<Request> read_requests(std::string const& path) {
  std::vector<Request> requests;
  for_each_json_record(path, [&](nlohmann::json const&, RecordPlace const& place) {
    requests.push_back({place.text(), std::string(place.record)});
  });
  FSLLM_CHECK(!requests.empty(), "{} holds no request (the file is empty). Write one JSON object a line.",
              path);
  return requests;
}

int64_t batch_tokens(CommandLine const& line) {
  auto const tokens = line.number("batch_tokens");
  FSLLM_CHECK(tokens > 0, "--batch_tokens 0 (a forward pass needs a token). Leave it out, or write 2048.");
  return tokens;
}

std::string either(std::string const& given, std::string const& otherwise) {
  return given.empty() ? otherwise : given;
}

/// What is scored: as the command line says, and where it is silent, as the run does.
struct Subject {
  std::optional<EvaluatedRun> run;
  std::filesystem::path model_dir;
  std::vector<std::string> adapters;  ///< [NAME=]DIR
  LoadOptions load;
};

Subject subject_of(CommandLine const& line) {
  Subject subject;
  if (line.has("run")) subject.run = read_run(line.need("run"));
  auto const run = subject.run.value_or(EvaluatedRun{});
  subject.model_dir = subject.run ? either(line.text("model"), run.model_dir.string()) : line.need("model");
  if (line.has("adapter"))
    subject.adapters = line.all("adapter");
  else if (!run.adapter.empty())
    subject.adapters = {run.adapter.string()};
  subject.load.storage_dtype = either(line.text("storage_dtype"), run.storage_dtype);
  subject.load.compute_dtype = either(line.text("dtype"), either(run.compute_dtype, "fp32"));
  parse_dtype(subject.load.compute_dtype, "--dtype");
  subject.load.cache_dir = user_cache_dir();
  return subject;
}

/// Collective: where this rank computes.
std::string device_of(CommandLine const& line, Communicator const& world) {
  std::string use_gpu;
  agree(world, [&] { use_gpu = parse_use_gpu(line.need("use_gpu"), "--use_gpu"); });
  return choose_device(use_gpu, world).device;
}

/// Every rank computes its share of the batches; rank 0 puts the answers together.
int score(CommandLine const& line, Communicator const& world) {
  auto const device = device_of(line, world);
  at::set_num_threads(1);
  std::unique_ptr<OutputFile> out;
  std::unique_ptr<ModelSession> session;
  std::unique_ptr<RequestWork> work;
  RequestResults results;
  agree(world, [&] {
    auto const responses = line.need("responses");
    auto const requests = read_requests(line.need("requests"));
    if (world.rank() == 0) out = std::make_unique<OutputFile>(responses, "--responses");
    auto subject = subject_of(line);
    subject.load.device = device;
    session = std::make_unique<ModelSession>(subject.model_dir, subject.load);
    use_adapter(*session, the_adapter(subject.adapters));
    work = std::make_unique<RequestWork>(requests, session->model().config(), session->tokenizer().get());
    results = work->compute(session->model(), batch_tokens(line), {world.rank(), world.size()});
  });
  results = {all_gather(results.scores, world), all_gather(results.tokens, world)};
  agree(world, [&] {
    if (world.rank() != 0) return;
    std::string lines;
    auto const answers = work->answers(results);
    for (auto const& answer : answers) lines += answer + "\n";
    out->finish(lines);
    log_info("{} answers written to {}", answers.size(), line.need("responses"));
  });
  return 0;
}

/// NAME=DIR, or a folder alone, which is called "adapter".
Candidate candidate(std::string const& given) {
  auto const equals = given.find('=');
  bool const named = equals != std::string::npos && equals > 0 && !std::filesystem::exists(given);
  return named ? Candidate{given.substr(0, equals), given.substr(equals + 1)} : Candidate{"adapter", given};
}

std::vector<Sample> rows_of(CommandLine const& line, Subject const& subject) {
  std::vector<Sample> rows;
  if (!line.has("tasks")) {
    rows = test_rows(*subject.run, line.need("run"));
  } else {
    DataConfig data;
    data.types = {line.need("tasks")};
    data.root = line.need("data");
    rows = read_samples(data);
  }
  if (auto const limit = static_cast<size_t>(line.number("limit")); limit > 0 && limit < rows.size())
    rows.resize(limit);
  return rows;
}

/// Model, adapters and types, as both kinds of jobs have them.
EvaluateJob job_without_rows(CommandLine const& line, Subject const& subject) {
  line.need("out");
  EvaluateJob job{subject.model_dir};
  FSLLM_CHECK(
      !line.has("base") || !subject.run || !subject.run->adapter.empty() || line.has("model"),
      "--base (the run trained the whole model). Score the model that it started from in a call of its "
      "own.");
  if (line.has("base") || subject.adapters.empty())
    job.candidates.push_back(
        {subject.run && !line.has("model") && subject.adapters.empty() ? "model" : "base", ""});
  for (auto const& given : subject.adapters) job.candidates.push_back(candidate(given));
  for (auto const& one : job.candidates)
    FSLLM_CHECK(std::ranges::count(job.candidates, one.name, &Candidate::name) == 1,
                "--adapter: two are called '{}' (tables tell them apart by name). Write NAME=DIR.", one.name);
  job.load = subject.load;
  job.batch_tokens = batch_tokens(line);
  return job;
}

EvaluateJob job_of(CommandLine const& line) {
  FSLLM_CHECK(!line.has("shots"),
              "--shots {} (rows of instructions are asked without examples). Leave it out.",
              line.text("shots"));
  auto const subject = subject_of(line);
  auto job = job_without_rows(line, subject);
  choose_templates(job, line.text("prompt_template"));
  job.rows = rows_of(line, subject);
  return job;
}

TaskJob task_job_of(CommandLine const& line) {
  auto const names = task_names(line.need("tasks"));
  auto common = job_without_rows(line, subject_of(line));
  if (ask_instructions(names)) choose_templates(common, line.text("prompt_template"));
  FSLLM_CHECK(ask_instructions(names) || !line.has("prompt_template"),
              "--prompt_template {} (these tasks have prompts of their own). Leave it out.",
              line.text("prompt_template"));
  FSLLM_CHECK(line.number("examples") == 0,
              "--examples (it prints rows of a file of instructions). Leave it out; what was answered is in "
              "samples_TASK.jsonl.");
  TaskJob job{common.model_dir, common.candidates, names, {}, common.load, common.batch_tokens};
  for (auto const& candidate : job.candidates)
    FSLLM_CHECK(candidate.name.find_first_of("/\\") == std::string::npos && !candidate.name.starts_with('.'),
                "--adapter: the name '{}' (its results go into a folder of that name). Choose another.",
                candidate.name);
  job.options.data = line.need("data");
  job.options.limit = line.number("limit");
  if (line.has("shots")) job.options.shots = line.number("shots");
  return job;
}

/// One file of rows with instruction, input and output, rather than names of tasks?
bool is_rows(CommandLine const& line) {
  auto const tasks = line.text("tasks");
  if (tasks.find(',') != std::string::npos || tasks.find(".json") == std::string::npos) return false;
  auto const file = own_task_file(tasks, line.need("data"));
  return !std::filesystem::is_regular_file(file) || own_task_kind(file) == OwnKind::unknown;
}

void check_asked(CommandLine const& line) {
  FSLLM_CHECK(line.has("tasks") || line.has("requests") || line.has("run"),
              "nothing to score (none of --tasks, --requests and --run is given). See fsllm_eval --help.");
}

/// Collective: built-in tasks, by every adapter.
int run_tasks(CommandLine const& line, Communicator const& world) {
  TaskJob job;
  std::unique_ptr<OutputFolder> out;
  agree(world, [&] {
    job = task_job_of(line);
    if (world.rank() != 0) return;
    out = std::make_unique<OutputFolder>(line.need("out"));
    out->check_free(task_files(job));
  });
  job.load.device = device_of(line, world);
  auto const outcomes = evaluate_tasks(job, world, out.get());
  agree(world, [&] {
    if (world.rank() != 0) return;
    write_task_results(job, outcomes, *out);
    fmt::print("{}", printable(task_table_text(outcomes, false)));
    log_info("results written to {}", line.need("out"));
  });
  // Every rank has all outcomes.
  agree(world, [&] {
    for (auto const& candidate : outcomes)
      for (auto const& task : candidate.tasks)
        FSLLM_CHECK(task.unjudged.empty(),
                    "{}: no score ({}). Its answers are in {}; judge them where programs can be run in a "
                    "sandbox.",
                    task.task->name, task.unjudged, line.need("out"));
  });
  return 0;
}

/// Collective: rows with expected answers, by every adapter.
int run_rows(CommandLine const& line, Communicator const& world) {
  EvaluateJob job;
  std::unique_ptr<OutputFolder> out;
  agree(world, [&] {
    job = job_of(line);
    if (world.rank() != 0) return;
    out = std::make_unique<OutputFolder>(line.need("out"));
    out->check_free({"results.json", "results.svg", "predictions.jsonl"});
  });
  job.load.device = device_of(line, world);
  auto const evaluation = evaluate(job, world);
  agree(world, [&] {
    if (world.rank() != 0) return;
    write_evaluation(evaluation, *out);
    fmt::print("{}", printable(evaluation_table(evaluation) +
                               evaluation_examples(evaluation, line.number("examples"))));
  });
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  auto const start = fsllm::start_program(kProgram, argc, argv);
  if (!start.line) return start.exit_code;
  return fsllm::run_program(argc, argv, [&](fsllm::Communicator const& world) {
    auto const& line = *start.line;
    bool rows = true;
    fsllm::agree(world, [&] {
      check_asked(line);
      if (line.has("tasks")) rows = is_rows(line);
    });
    if (!rows) return run_tasks(line, world);
    return line.has("requests") && !line.has("tasks") ? score(line, world) : run_rows(line, world);
  });
}
