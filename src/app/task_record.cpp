// SPDX-License-Identifier: Apache-2.0
#include "task_record.hpp"

#include <chrono>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr char const* kDone = "tasks.json";

std::string dumped(ordered_json const& json, int indent = -1) {
  return json.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

/// A file as it was: large ones are told by size and time.
std::string state_of(fs::path const& file) {
  auto const time = fs::last_write_time(file).time_since_epoch();
  return fmt::format("{} {} {}\n", fs::weakly_canonical(file).string(), fs::file_size(file),
                     std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
}

std::string item_text(TaskItem const& item) {
  auto const& writing = item.writing;
  return dumped({item.groups, item.prompt(), item.has_specials, item.choices, item.gold, item.target,
                 item.document, writing.max_tokens, writing.as_long_as, writing.stops, writing.temperature,
                 writing.top_k, writing.top_p, writing.samples});
}

ordered_json sample_line(EvalTask const& task, size_t i, ItemScore const& score, ItemAnswer const& answer) {
  auto const& item = task.items[i];
  ordered_json line{{"doc_id", i}};
  if (!item.groups.empty()) line["group"] = item.groups.back();
  if (!item.question.empty()) line["question"] = item.question;
  line["target"] = item.target;
  if (!item.choices.empty()) line["choices"] = item.choices;
  auto& resps = line["resps"] = ordered_json::array();
  for (auto const& choice : answer.choices) resps.push_back({choice.loglikelihood, choice.is_greedy});
  for (auto const& text : answer.texts) resps.push_back(text);
  if (answer.dropped_shots > 0) line["dropped_shots"] = answer.dropped_shots;
  if (answer.is_cut) line["prompt_cut"] = true;
  line["prediction"] = score.prediction;
  for (size_t m = 0; m < task.metrics.size(); ++m) line["metrics"][task.metrics[m].key()] = score.values[m];
  return line;
}

ordered_json read_done(OutputFolder const& out, std::string const& prefix) {
  auto const name = prefix + kDone;
  if (!out.owns(name) || !fs::exists(out.root() / name)) return ordered_json::object();
  auto done = ordered_json::parse(read_file(out.root() / name), nullptr, false);
  return done.is_object() ? done : ordered_json::object();
}

}  // namespace

std::string identity_of(TaskJob const& job, Candidate const& candidate) {
  std::string text;
  for (auto const& file : model_files(job.model_dir)) text += state_of(file);
  if (!candidate.adapter.empty())
    for (auto const* name : {"adapter_config.json", "adapter_model.safetensors"})
      text += sha256_file(candidate.adapter / name) + "\n";
  return text;
}

std::string task_settings(TaskJob const& job, std::string const& identity, EvalTask const& task) {
  std::string text = fmt::format("{} {} {} {} {} {}\n", task.name, task.version, job.batch_tokens,
                                 job.load.storage_dtype, job.load.compute_dtype, job.load.device);
  text += identity;
  for (auto const& item : task.items) text += item_text(item) + "\n";
  return sha256(text);
}

std::string to_text(std::vector<ItemScore> const& scores) {
  auto json = ordered_json::array();
  for (auto const& score : scores) json.push_back({score.prediction, score.values});
  return dumped(json);
}

std::vector<ItemScore> scores_from_text(std::string const& text) {
  std::vector<ItemScore> scores;
  for (auto const& entry : nlohmann::json::parse(text))
    scores.push_back({entry.at(0).get<std::string>(), entry.at(1).get<std::vector<double>>()});
  return scores;
}

void keep_task(OutputFolder& out, std::string const& prefix, EvalTask const& task,
               std::string const& settings, TaskScores const& done, std::vector<ItemAnswer> const& answers) {
  std::string lines;
  for (size_t i = 0; i < task.items.size(); ++i)
    lines += dumped(sample_line(task, i, done.scores[i], answers[i])) + "\n";
  auto const samples = prefix + "samples_" + task.name + ".jsonl";
  if (!prefix.empty()) make_folder(out.root() / prefix);
  out.write(samples, lines);
  auto all = read_done(out, prefix);
  all[task.name] = {{"settings", settings},
                    {"samples", sha256(lines)},
                    {"prompts_shortened", done.shortened},
                    {"prompts_cut", done.cut}};
  out.write(prefix + kDone, dumped(all, 2) + "\n");
}

std::optional<TaskScores> kept_task(OutputFolder const& out, std::string const& prefix, EvalTask const& task,
                                    std::string const& settings) {
  auto const all = read_done(out, prefix);
  auto const samples = out.root() / (prefix + "samples_" + task.name + ".jsonl");
  auto const entry = all.find(task.name);
  if (entry == all.end() || entry->value("settings", "") != settings || !fs::exists(samples) ||
      entry->value("samples", "") != sha256_file(samples))
    return std::nullopt;
  TaskScores kept{{}, entry->value("prompts_shortened", int64_t{0}), entry->value("prompts_cut", int64_t{0})};
  for_each_json_record(samples, [&](nlohmann::json const& line, RecordPlace const&) {
    ItemScore score{line.at("prediction").get<std::string>(), {}};
    for (auto const& metric : task.metrics)
      score.values.push_back(line.at("metrics").at(metric.key()).get<double>());
    kept.scores.push_back(std::move(score));
  });
  if (kept.scores.size() != task.items.size()) return std::nullopt;
  return kept;
}

}  // namespace fsllm
