// SPDX-License-Identifier: Apache-2.0
// Several runs beside each other.
#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "chart.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/plot.hpp"
#include "fsllm/report/report.hpp"
#include "page.hpp"
#include "text.hpp"

namespace fsllm {
namespace {

using namespace detail;

constexpr char const* kNothing = "–";
/// What differs between any two runs, and says nothing of them.
std::set<std::string> const kOwnKeys{"outdir", "expname"};

std::vector<std::string> names_of(std::vector<RunData> const& runs) {
  std::vector<std::string> names;
  for (auto const& run : runs) {
    bool const unique = std::ranges::count(runs, run.name, &RunData::name) == 1;
    names.push_back(unique ? run.name : run.folder.string());
  }
  return names;
}

void check_comparable(std::vector<RunData> const& runs) {
  FSLLM_CHECK(runs.size() > 1, "one run cannot be compared (with what?). Give two or more run directories.");
  for (auto const& run : runs)
    FSLLM_CHECK(run.loss_name == runs.front().loss_name,
                "{} has {} and {} has {} (losses of two kinds). Compare runs of one kind.",
                runs.front().folder.string(), runs.front().loss_name, run.folder.string(), run.loss_name);
}

std::vector<std::string> splits_of(std::vector<RunData> const& runs) {
  std::vector<std::string> found;
  for (auto const& run : runs)
    for (auto const& split : held_out_splits(run))
      if (std::ranges::find(found, split) == found.end()) found.push_back(split);
  found.emplace_back("train");
  return found;
}

std::optional<double> loss_at(RunData const& run, int64_t round, std::string const& split) {
  auto const at = std::ranges::lower_bound(run.rounds, round, {}, &RoundFacts::round);
  if (at == run.rounds.end() || at->round != round) return {};
  auto const found = at->losses.find(split);
  return found == at->losses.end() ? std::nullopt : std::optional(found->second);
}

/// A row a round, a column a run.
Table losses_table(std::vector<RunData> const& runs, std::string const& split) {
  Table table{split + " loss by round", {"round"}, {}};
  auto const names = names_of(runs);
  table.header.insert(table.header.end(), names.begin(), names.end());
  std::set<int64_t> rounds;
  for (auto const& run : runs)
    for (auto const& round : run.rounds)
      if (round.losses.contains(split)) rounds.insert(round.round);
  for (int64_t const round : rounds) {
    std::vector<std::string> row{std::to_string(round)};
    for (auto const& run : runs) {
      auto const loss = loss_at(run, round, split);
      row.push_back(loss ? loss_text(*loss) : kNothing);
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table overview(std::vector<RunData> const& runs) {
  Table table{"runs",
              {"run", "state", "best loss", "of round", "seconds", "sent up", "sent down", "memory"},
              {},
              "",
              2};
  auto const names = names_of(runs);
  for (size_t i = 0; i < runs.size(); ++i) {
    auto const& run = runs[i];
    auto const best = best_loss(run);
    double up = 0, down = 0, memory = 0;
    for (auto const& round : run.rounds) {
      up += static_cast<double>(round.bytes_up);
      down += static_cast<double>(round.bytes_down);
      memory = std::max(memory, static_cast<double>(round.peak_rss_bytes));
    }
    table.rows.push_back({names[i], summary_of(run).front().second, best ? loss_text(best->second) : kNothing,
                          best ? std::to_string(best->first) : kNothing,
                          fmt::format("{:.1f}", seconds_in(run, "")), bytes_text(up), bytes_text(down),
                          bytes_text(memory)});
  }
  return table;
}

/// Keys that have another value in any of the runs.
Table differences(std::vector<RunData> const& runs) {
  Table table{"differences of configuration", {"key"}, {}, "", runs.size() + 1};
  auto const names = names_of(runs);
  table.header.insert(table.header.end(), names.begin(), names.end());
  std::set<std::string> seen;
  for (auto const& of : runs)
    for (auto const& [key, value] : of.config) {
      if (kOwnKeys.contains(key) || !seen.insert(key).second) continue;
      std::vector<std::string> row{key};
      for (auto const& run : runs) row.push_back(run.setting(key));
      if (std::any_of(row.begin() + 2, row.end(), [&](auto const& other) { return other != row[1]; }))
        table.rows.push_back(std::move(row));
    }
  return table;
}

}  // namespace

std::string comparison_text(std::vector<RunData> const& runs) {
  check_comparable(runs);
  std::string text;
  for (auto const& run : runs)
    for (auto const& problem : run.problems)
      text += fmt::format("warning: {}: {}\n", run.folder.string(), problem);
  text += table_text(overview(runs)).substr(1);
  for (auto const& split : splits_of(runs)) text += table_text(losses_table(runs, split));
  auto const keys = differences(runs);
  return text + (keys.rows.empty() ? "\nno key of the configurations differs\n" : table_text(keys));
}

std::string comparison_html(std::vector<RunData> const& runs) {
  check_comparable(runs);
  auto const names = names_of(runs);
  std::string drawn, tables;
  for (auto const& split : splits_of(runs)) {
    Chart chart{split + " loss", "", {}};
    for (size_t i = 0; i < runs.size(); ++i) {
      Curve curve{names[i], {}};
      for (auto const& round : runs[i].rounds)
        if (auto const loss = loss_at(runs[i], round.round, split))
          (round.round == 0 ? curve.before : curve.points)
              .push_back({static_cast<double>(round.round), *loss});
      curve.points = thinned(std::move(curve.points), 20000);
      chart.curves.push_back(std::move(curve));
    }
    drawn += chart_html(chart);
    auto const table = losses_table(runs, split);
    tables += section_html(table.title, table_html(table));
  }
  std::string title;
  for (auto const& name : names) title += (title.empty() ? "" : ", ") + name;
  auto body = fmt::format(
      "<header>\n<h1>{}</h1>\n<p class=\"soft\">runs of fsllm_hpc beside each other</p>\n", xml_text(title));
  for (auto const& run : runs)
    for (auto const& problem : run.problems)
      body +=
          fmt::format("<p class=\"warning\">{}: {}</p>\n", xml_text(run.folder.string()), xml_text(problem));
  auto const keys = differences(runs);
  body += "</header>\n<main>\n" + table_html(overview(runs)) +
          section_html("Losses", "<div class=\"charts\">\n" + drawn + "</div>\n") +
          section_html("Differences of configuration",
                       keys.rows.empty() ? "<p>No key differs.</p>\n" : table_html(keys)) +
          tables + "</main>\n";
  return page_html(title + " – fsllm_hpc", body);
}

}  // namespace fsllm
