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

/// What a table shows of each candidate.
struct Measure {
  char const* title;
  std::string (*cell)(ExactMatch const&);
};
constexpr Measure kExactMatch{"exact match",
                              [](ExactMatch const& m) { return fmt::format("{:.1f} %", 100 * m.share()); }};
constexpr Measure kLoss{"loss a token", [](ExactMatch const& m) { return fmt::format("{:.3f}", m.loss()); }};
constexpr size_t kWidestTable = 100;

size_t column_width(Candidate const& candidate) {
  return std::max<size_t>(9, candidate.name.size() + 2);
}

std::string table_of(Evaluation const& evaluation, Sums const& sums, std::vector<Measure> const& measures) {
  std::string titles = fmt::format("{:<20}", ""), names = fmt::format("{:<14}{:>6}", "", "rows");
  for (auto const& measure : measures) {
    auto const start = names.size();
    for (auto const& candidate : evaluation.candidates)
      names += fmt::format("{:>{}}", candidate.name, column_width(candidate));
    titles += fmt::format("{:>{}}", measure.title, names.size() - start);
  }
  std::string lines;
  auto const add = [&](std::string const& category, std::string const& label) {
    lines += fmt::format("{:<14}{:>6}", label, sums.front().at(category).rows);
    for (auto const& measure : measures)
      for (size_t c = 0; c < sums.size(); ++c)
        lines +=
            fmt::format("{:>{}}", measure.cell(sums[c].at(category)), column_width(evaluation.candidates[c]));
    lines += "\n";
  };
  for (auto const& [category, sum] : sums.front())
    if (!category.empty()) add(category, category);
  add("", "all");
  return titles + "\n" + names + "\n" + lines;
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

void write_evaluation(Evaluation const& evaluation, OutputFolder& out) {
  ordered_json results;
  for (size_t c = 0; c < evaluation.candidates.size(); ++c) {
    auto const sums = sums_of(evaluation, c);
    auto& entry = results[evaluation.candidates[c].name];
    entry = to_json(sums.at(""));
    for (auto const& [category, sum] : sums)
      if (!category.empty()) entry["categories"][category] = to_json(sum);
  }
  out.write("predictions.jsonl", predictions(evaluation));
  out.write("results.json", dumped(results, 2) + "\n");
}

std::string evaluation_table(Evaluation const& evaluation) {
  Sums sums;
  size_t width = 20;
  for (size_t c = 0; c < evaluation.candidates.size(); ++c) {
    sums.push_back(sums_of(evaluation, c));
    width += 2 * column_width(evaluation.candidates[c]);
  }
  if (width <= kWidestTable) return table_of(evaluation, sums, {kExactMatch, kLoss});
  return table_of(evaluation, sums, {kExactMatch}) + "\n" + table_of(evaluation, sums, {kLoss});
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
