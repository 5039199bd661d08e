// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "fsllm/app/evaluate.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

using nlohmann::ordered_json;

/// Sums by category, the whole under "".
std::map<std::string, ExactMatch> sums_of(Evaluation const& evaluation, size_t candidate) {
  std::map<std::string, ExactMatch> sums;
  for (size_t row = 0; row < evaluation.rows.size(); ++row) {
    auto const& answer = evaluation.answers[candidate][row];
    sums[""].add(answer);
    if (auto const& category = evaluation.rows[row].category; !category.empty()) sums[category].add(answer);
  }
  return sums;
}

ordered_json to_json(ExactMatch const& sum) {
  return {{"rows", sum.rows},
          {"exact_match", sum.share()},
          {"loss_per_token", sum.loss()},
          {"targets", sum.targets}};
}

std::string dumped(ordered_json const& json, int indent) {
  return json.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

std::string predictions(Evaluation const& evaluation) {
  std::string lines;
  for (size_t row = 0; row < evaluation.rows.size(); ++row) {
    auto const& sample = evaluation.rows[row];
    ordered_json line{
        {"instruction", sample.instruction}, {"input", sample.input}, {"output", sample.output}};
    if (!sample.category.empty()) line["category"] = sample.category;
    for (size_t c = 0; c < evaluation.candidates.size(); ++c) {
      auto const& answer = evaluation.answers[c][row];
      line["answers"][evaluation.candidates[c].name] = {
          {"text", answer.text}, {"exact", answer.exact}, {"loss_sum", answer.loss_sum}};
    }
    lines += dumped(line, -1) + "\n";
  }
  return lines;
}

using Sums = std::vector<std::map<std::string, ExactMatch>>;

std::string table_line(Evaluation const& evaluation, Sums const& sums, std::string const& category) {
  auto line = fmt::format("{:<14}{:>6}", category.empty() ? "all" : category, sums.front().at(category).rows);
  for (int const part : {0, 1}) {
    line += "  ";
    for (size_t c = 0; c < sums.size(); ++c) {
      auto const& sum = sums[c].at(category);
      auto const width = std::max<size_t>(8, evaluation.candidates[c].name.size() + 2);
      line += part == 0 ? fmt::format("{:>{}.1f} %", 100 * sum.share(), width - 2)
                        : fmt::format("{:>{}.3f}", sum.loss(), width);
    }
  }
  return line + "\n";
}

/// Rows worth showing, in order.
std::vector<size_t> shown_rows(Evaluation const& evaluation, size_t count) {
  std::vector<size_t> telling, rest;
  auto const& first = evaluation.answers.front();
  auto const& last = evaluation.answers.back();
  for (size_t row = 0; row < evaluation.rows.size(); ++row)
    (last[row].exact && !first[row].exact ? telling : rest).push_back(row);
  telling.insert(telling.end(), rest.begin(), rest.end());
  telling.resize(std::min(count, telling.size()));
  return telling;
}

}  // namespace

void write_evaluation(Evaluation const& evaluation, std::filesystem::path const& dir) {
  std::error_code problem;
  std::filesystem::create_directories(dir, problem);
  FSLLM_CHECK(!problem, "{} cannot be created ({}). Choose another --out.", dir.string(), problem.message());
  ordered_json results;
  for (size_t c = 0; c < evaluation.candidates.size(); ++c) {
    auto const sums = sums_of(evaluation, c);
    auto& entry = results[evaluation.candidates[c].name];
    entry = to_json(sums.at(""));
    for (auto const& [category, sum] : sums)
      if (!category.empty()) entry["categories"][category] = to_json(sum);
  }
  write_file_atomic(dir / "results.json", dumped(results, 2) + "\n");
  write_file_atomic(dir / "predictions.jsonl", predictions(evaluation));
}

std::string evaluation_table(Evaluation const& evaluation) {
  Sums sums;
  std::string names;
  for (size_t c = 0; c < evaluation.candidates.size(); ++c) {
    sums.push_back(sums_of(evaluation, c));
    auto const& name = evaluation.candidates[c].name;
    names += fmt::format("{:>{}}", name, std::max<size_t>(8, name.size() + 2));
  }
  auto table = fmt::format("{:<20}  {:<{}}  {}\n", "", "   exact match", names.size(), "   loss a token");
  table += fmt::format("{:<14}{:>6}  {}  {}\n", "", "rows", names, names);
  for (auto const& [category, sum] : sums.front())
    if (!category.empty()) table += table_line(evaluation, sums, category);
  return table + table_line(evaluation, sums, "");
}

std::string evaluation_examples(Evaluation const& evaluation, int64_t count) {
  std::string text;
  size_t width = std::string_view("expected").size();
  for (auto const& candidate : evaluation.candidates) width = std::max(width, candidate.name.size());
  for (auto const row : shown_rows(evaluation, static_cast<size_t>(count))) {
    auto const& sample = evaluation.rows[row];
    text += fmt::format("\n{:<{}}  {} {}\n{:<{}}  {}\n", "asked", width, sample.instruction, sample.input,
                        "expected", width, sample.output);
    for (size_t c = 0; c < evaluation.candidates.size(); ++c)
      text +=
          fmt::format("{:<{}}  {}\n", evaluation.candidates[c].name, width, evaluation.answers[c][row].text);
  }
  return text;
}

}  // namespace fsllm
