// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "fsllm/app/evaluate.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/plot.hpp"
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

/// Bars of exact match: a group for each category and for all rows, a bar for each candidate.
std::string exact_match_plot(Evaluation const& evaluation, Sums const& sums) {
  constexpr double kHeight = 220, kTop = 40, kLeft = 56, kBar = 26, kGap = 26;
  auto const colour = [](size_t i) { return kCurveColours.at(i % kCurveColours.size()); };
  std::vector<std::string> groups;
  for (auto const& [category, sum] : sums.front())
    if (!category.empty()) groups.push_back(category);
  groups.emplace_back("");
  auto const count = static_cast<double>(sums.size());
  double const group = kBar * count + kGap, width = kLeft + group * static_cast<double>(groups.size()) + 20;
  auto const height_of = [&](double share) { return kHeight * share; };
  std::string body;
  for (int percent = 0; percent <= 100; percent += 20)
    body += fmt::format(
        "<line x1='{0}' x2='{1:.0f}' y1='{2:.1f}' y2='{2:.1f}' stroke='#dddddd'/><text x='{3}' y='{4:.1f}' "
        "text-anchor='end'>{5} %</text>\n",
        kLeft, width - 10, kTop + kHeight - height_of(percent / 100.0), kLeft - 6,
        kTop + kHeight - height_of(percent / 100.0) + 4, percent);
  for (size_t g = 0; g < groups.size(); ++g) {
    double const x = kLeft + kGap / 2 + group * static_cast<double>(g);
    for (size_t c = 0; c < sums.size(); ++c) {
      double const share = sums[c].at(groups[g]).share(), left = x + kBar * static_cast<double>(c);
      double const y = kTop + kHeight - height_of(share);
      body += fmt::format(
          "<rect x='{:.1f}' y='{:.1f}' width='{}' height='{:.1f}' fill='{}'/><text x='{:.1f}' y='{:.1f}' "
          "text-anchor='middle' font-size='10'>{:.0f}</text>\n",
          left, y, kBar - 2, height_of(share), colour(c), left + kBar / 2 - 1, y - 3, 100 * share);
    }
    body += fmt::format("<text x='{:.1f}' y='{:.0f}' text-anchor='middle'>{}</text>\n", x + kBar * count / 2,
                        kTop + kHeight + 16, xml_text(groups[g].empty() ? "all" : groups[g]));
  }
  double y = kTop + kHeight + 34, widest = width;
  for (size_t c = 0; c < sums.size(); ++c, y += 18) {
    auto const& name = evaluation.candidates[c].name;
    widest = std::max(widest, kLeft + 40 + 8.0 * static_cast<double>(name.size()));
    body += fmt::format(
        "<rect x='{0}' y='{1:.0f}' width='12' height='12' fill='{2}'/><text x='{3}' y='{4:.0f}'>{5}</text>\n",
        kLeft, y, colour(c), kLeft + 18, y + 11, xml_text(name));
  }
  return fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{:.0f}' height='{:.0f}' font-family='sans-serif' "
      "font-size='12'>\n<rect width='100%' height='100%' fill='white'/><text x='{}' y='18' "
      "font-weight='bold'>"
      "Answers that match exactly, of {} rows</text>\n{}</svg>\n",
      std::max(widest, 360.0), y + 10, kLeft, sums.front().at("").rows, body);
}

}  // namespace

void write_evaluation(Evaluation const& evaluation, OutputFolder& out) {
  ordered_json results;
  Sums all;
  for (size_t c = 0; c < evaluation.candidates.size(); ++c) {
    auto const& sums = all.emplace_back(sums_of(evaluation, c));
    auto& entry = results[evaluation.candidates[c].name];
    entry = to_json(sums.at(""));
    for (auto const& [category, sum] : sums)
      if (!category.empty()) entry["categories"][category] = to_json(sum);
  }
  out.write("predictions.jsonl", predictions(evaluation));
  out.write("results.json", dumped(results, 2) + "\n");
  out.write("results.svg", exact_match_plot(evaluation, all));
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
