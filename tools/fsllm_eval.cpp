// SPDX-License-Identifier: Apache-2.0
// Scores requests in the manner of lm-evaluation-harness with a model and an adapter; every rank takes a
// part.
#include <ATen/Parallel.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "fsllm/app/evaluate.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/eval/requests.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/output_file.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/text/template.hpp"

namespace {

namespace po = boost::program_options;
using namespace fsllm;

po::options_description options() {
  po::options_description all("Options");
  auto add = all.add_options();
  auto text = [](char const* name) { return po::value<std::string>()->value_name(name); };
  add("model", text("DIR"), "model, Hugging Face layout");
  add("adapter", po::value<std::vector<std::string>>()->value_name("[NAME=]DIR"),
      "PEFT adapter to score with; may be repeated with --tasks");
  add("tasks", text("FILE.jsonl"),
      "rows with instruction, input and output: exact match and loss by category");
  add("data", text("DIR")->default_value("."), "folder of the task's file");
  add("out", text("DIR"), "folder for results.json and predictions.jsonl");
  add("base", "with --tasks: score the model without an adapter too");
  add("prompt_template", text("NAME")->default_value("alpaca"), "with --tasks: as data.prompt_template");
  add("limit", po::value<int64_t>()->default_value(0), "with --tasks: the first rows only; 0: all");
  add("examples", po::value<int64_t>()->default_value(0), "with --tasks: rows to print with their answers");
  add("requests", text("IN.jsonl"),
      "one request a line: loglikelihood, loglikelihood_rolling or generate_until");
  add("responses", text("OUT.jsonl"), "one answer a line, in the order of the requests");
  add("dtype", text("TYPE")->default_value("fp32"), "type of activations: fp32, bf16 or fp16");
  add("storage_dtype", text("TYPE")->default_value("auto"),
      "type of the model's weights, as train.storage_dtype in the run: auto (as in the file), fp32, bf16, "
      "fp16, int8 or nf4");
  add("batch_tokens", po::value<int64_t>()->default_value(2048), "tokens in one forward pass");
  add("help", "this text");
  return all;
}

po::variables_map parse(int argc, char** argv) {
  po::variables_map values;
  try {
    po::store(po::parse_command_line(argc, argv, options()), values);
  } catch (po::error const& error) {
    fail(fmt::format("command line: {}. See fsllm_eval --help.", error.what()));
  }
  return values;
}

std::string need(po::variables_map const& values, char const* name) {
  FSLLM_CHECK(values.count(name) != 0, "--{} is missing. See fsllm_eval --help.", name);
  return values[name].as<std::string>();
}

/// Requests are scored with one adapter.
std::string the_adapter(po::variables_map const& values) {
  auto const given = values["adapter"].as<std::vector<std::string>>();
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

struct Scorer {
  std::unique_ptr<CausalLM> model;
  std::unique_ptr<Peft> peft;
  std::unique_ptr<Tokenizer> tokenizer;
};

Scorer load(po::variables_map const& values) {
  auto const dir = need(values, "model");
  Scorer scorer;
  LoadOptions load_options;
  load_options.storage_dtype = values["storage_dtype"].as<std::string>();
  load_options.compute_dtype = values["dtype"].as<std::string>();
  load_options.cache_dir = user_cache_dir();
  scorer.model = load_model(dir, load_options);
  std::string adapter;
  if (values.count("adapter") != 0) {
    adapter = the_adapter(values);
    scorer.peft = make_peft(read_adapter_config(adapter), *scorer.model, 0);
  }
  auto const source = tokenizer_source(dir, adapter);
  if (has_tokenizer(source)) scorer.tokenizer = load_tokenizer(source);
  return scorer;
}

/// Rank r answers requests r, r + size, ...; rank 0 puts them back in order.
int score(po::variables_map const& values, Communicator const& world) {
  at::set_num_threads(1);
  std::vector<Request> mine;
  std::string answers;
  std::unique_ptr<OutputFile> out;
  size_t total = 0;
  agree(world, [&] {
    auto const responses = need(values, "responses");
    auto const all = read_requests(need(values, "requests"));
    if (world.rank() == 0) out = std::make_unique<OutputFile>(responses, "--responses");
    total = all.size();
    auto const size = static_cast<size_t>(world.size());
    for (size_t i = static_cast<size_t>(world.rank()); i < total; i += size) mine.push_back(all[i]);
    if (mine.empty()) return;
    auto scorer = load(values);
    for (auto const& answer :
         answer_requests(*scorer.model, scorer.tokenizer.get(), mine, values["batch_tokens"].as<int64_t>()))
      answers += answer + "\n";
  });
  auto const parts = world.gather(answers, 0);
  agree(world, [&] {
    if (world.rank() != 0) return;
    std::vector<std::istringstream> streams;
    for (auto const& part : parts) streams.emplace_back(part);
    std::string ordered, line;
    for (size_t i = 0; i < total; ++i) {
      std::getline(streams[i % streams.size()], line);
      ordered += line + "\n";
    }
    out->finish(ordered);
    log_info("{} answers written to {}", total, need(values, "responses"));
  });
  return 0;
}

/// NAME=DIR, or a folder alone, which is called "adapter".
Candidate candidate(std::string const& given) {
  auto const equals = given.find('=');
  bool const named = equals != std::string::npos && equals > 0 && !std::filesystem::exists(given);
  return named ? Candidate{given.substr(0, equals), given.substr(equals + 1)} : Candidate{"adapter", given};
}

EvaluateJob job_of(po::variables_map const& values) {
  EvaluateJob job;
  job.model_dir = need(values, "model");
  if (values.count("base") != 0 || values.count("adapter") == 0) job.candidates.push_back({"base", ""});
  if (values.count("adapter") != 0)
    for (auto const& given : values["adapter"].as<std::vector<std::string>>())
      job.candidates.push_back(candidate(given));
  for (auto const& one : job.candidates)
    FSLLM_CHECK(std::ranges::count(job.candidates, one.name, &Candidate::name) == 1,
                "--adapter: two are called '{}' (tables tell them apart by name). Write NAME=DIR.", one.name);
  job.data.type = need(values, "tasks");
  FSLLM_CHECK(job.data.type.find(".json") != std::string::npos,
              "--tasks {} (not available in this version). Give a .json or .jsonl file of rows.",
              job.data.type);
  job.data.root = need(values, "data");
  job.data.prompt.name = need(values, "prompt_template");
  job.data.prompt.model = job.model_dir.string();
  make_prompt_template(job.data.prompt);
  job.limit = values["limit"].as<int64_t>();
  job.storage_dtype = need(values, "storage_dtype");
  job.dtype = need(values, "dtype");
  job.batch_tokens = values["batch_tokens"].as<int64_t>();
  need(values, "out");
  return job;
}

/// Collective: rows with expected answers, by every adapter.
int run_tasks(po::variables_map const& values, Communicator const& world) {
  EvaluateJob job;
  std::unique_ptr<OutputFolder> out;
  agree(world, [&] {
    job = job_of(values);
    if (world.rank() != 0) return;
    out = std::make_unique<OutputFolder>(need(values, "out"));
    out->check_free({"results.json", "predictions.jsonl"});
  });
  auto const evaluation = evaluate(job, world);
  agree(world, [&] {
    if (world.rank() != 0) return;
    write_evaluation(evaluation, *out);
    fmt::print("{}", printable(evaluation_table(evaluation) +
                               evaluation_examples(evaluation, values["examples"].as<int64_t>())));
  });
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  fsllm::prepare_process();
  return fsllm::run_program(argc, argv, [&](fsllm::Communicator const& world) {
    po::variables_map values;
    fsllm::agree(world, [&] { values = parse(argc, argv); });
    if (argc == 1 || values.count("help") != 0) {
      if (world.rank() == 0)
        std::cout
            << "Scores requests with a model and an adapter; runs under mpirun too.\n\n"
               "  fsllm_eval --model DIR [--adapter DIR] --requests IN.jsonl --responses OUT.jsonl\n"
               "  fsllm_eval --model DIR [--base] [--adapter [NAME=]DIR]... --tasks FILE.jsonl --out DIR\n\n"
            << options();
      return 0;
    }
    return values.count("tasks") != 0 ? run_tasks(values, world) : score(values, world);
  });
}
