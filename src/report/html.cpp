// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include <algorithm>

#include "chart.hpp"
#include "fsllm/core/plot.hpp"
#include "fsllm/core/progress.hpp"
#include "fsllm/report/report.hpp"
#include "page.hpp"

namespace fsllm {
namespace {

using namespace detail;

constexpr size_t kMostPoints = 20000;  // of a curve that is drawn
constexpr size_t kMostBars = 40;
constexpr size_t kMostColumns = 120;

double x_of(RoundFacts const& round) {
  return static_cast<double>(round.round);
}

/// `value` of every round that has one, as a curve; that before the first round stands apart.
template <class Value>
Curve curve_of(RunData const& run, std::string const& name, Value value) {
  Curve curve{name, {}};
  for (auto const& round : run.rounds)
    if (auto const y = value(round))
      (round.round == 0 ? curve.before : curve.points).push_back({x_of(round), *y});
  curve.points = thinned(std::move(curve.points), kMostPoints);
  return curve;
}

Curve loss_curve(RunData const& run, std::string const& split) {
  return curve_of(run, split, [&](RoundFacts const& round) -> std::optional<double> {
    auto const found = round.losses.find(split);
    return found == round.losses.end() ? std::nullopt : std::optional(found->second);
  });
}

/// A curve of a number that is not there before training.
template <class Value>
Curve plain_curve(RunData const& run, std::string const& name, Value value) {
  auto curve = curve_of(run, name, [&](RoundFacts const& round) -> std::optional<double> {
    return round.round == 0 ? std::nullopt : std::optional<double>(value(round));
  });
  return curve;
}

std::string losses(RunData const& run) {
  Chart chart{"loss", run.loss_name == "loss_per_pair" ? "a pair" : "a token", {loss_curve(run, "train")}};
  for (auto const& split : held_out_splits(run)) chart.curves.push_back(loss_curve(run, split));
  std::string error;
  auto const errors =
      curve_of(run, "aggregation error", [](auto const& round) { return round.aggregation_error; });
  if (!errors.points.empty()) error = chart_html({"aggregation error", "", {errors}});
  auto const drawn = chart_html(chart) + error;
  return (drawn.empty() ? "" : "<div class=\"charts\">\n" + drawn + "</div>\n") +
         table_html(rounds_table(run));
}

/// The spread of a split's loss over clients, round by round.
std::string spread(RunData const& run, std::string const& split) {
  Band all{"smallest to largest", {}, {}}, most{"10 % to 90 %", {}, {}};
  Curve middle{"median client", {}};
  for (auto const& round : run.rounds) {
    auto const found = round.spread.find(split);
    if (found == round.spread.end() || (round.round == 0 && run.rounds.size() > 1)) continue;
    double const x = x_of(round);
    auto const& s = found->second;
    all.low.push_back({x, s.min});
    all.high.push_back({x, s.max});
    most.low.push_back({x, s.p10});
    most.high.push_back({x, s.p90});
    middle.points.push_back({x, s.p50});
  }
  for (auto* points : {&all.low, &all.high, &most.low, &most.high, &middle.points})
    *points = thinned(std::move(*points), kMostPoints);
  return chart_html({split + " loss of the clients", "", {middle}, {all, most}});
}

std::string clients(RunData const& run) {
  std::string drawn = spread(run, "train");
  for (auto const& split : held_out_splits(run)) drawn += spread(run, split);
  return (drawn.empty() ? "" : "<div class=\"charts\">\n" + drawn + "</div>\n") +
         table_html(clients_table(run));
}

/// Who trained when: clients by rounds, put together where there are many.
std::string sampling(RunData const& run) {
  if (run.turns.empty() || run.done() == 0) return "";
  std::map<int64_t, size_t> row_of;
  for (auto const& [id, client] : run.clients) row_of.emplace(id, row_of.size());
  auto const rounds = static_cast<size_t>(run.done()), many = row_of.size();
  size_t const columns = std::min(rounds, kMostColumns), rows = std::min(many, kMostBars);
  std::vector<std::vector<double>> cells(rows, std::vector<double>(columns, 0.0));
  auto const bin = [](size_t at, size_t of, size_t bins) { return at * bins / of; };
  std::vector<size_t> rounds_in(columns, 0), clients_in(rows, 0);
  for (size_t i = 0; i < rounds; ++i) ++rounds_in[bin(i, rounds, columns)];
  for (size_t i = 0; i < many; ++i) ++clients_in[bin(i, many, rows)];
  for (auto const& [round, client] : run.turns) {
    if (round < 1 || round > run.done()) continue;
    auto const r = bin(row_of.at(client), many, rows),
               c = bin(static_cast<size_t>(round - 1), rounds, columns);
    cells[r][c] += 1 / static_cast<double>(rounds_in[c] * clients_in[r]);
  }
  std::vector<std::string> names(rows);
  for (auto const& [id, place] : row_of)
    if (auto& name = names[bin(place, many, rows)]; name.empty()) name = std::to_string(id);
  bool const together = rounds > columns || many > rows;
  double most = 1e-9;
  for (auto const& row : cells) most = std::max(most, std::ranges::max(row));
  if (together)
    for (auto& row : cells)
      for (auto& cell : row) cell /= most;
  auto const title = together ? "who trained when (clients and rounds put together; darker: more of them)"
                              : "who trained when";
  auto drawn = shades_html(title, names, cells, "round 1", fmt::format("round {}", run.done()));
  bool const same = std::ranges::all_of(run.rounds, [&](auto const& round) {
    return round.round == 0 || round.clients == run.rounds.back().clients;
  });
  if (!same)
    drawn += chart_html({"clients a round",
                         "",
                         {plain_curve(run, "clients a round",
                                      [](auto const& round) { return static_cast<double>(round.clients); })},
                         {},
                         "round",
                         true});
  return "<div class=\"charts\">\n" + drawn + "</div>\n";
}

std::string split(RunData const& run) {
  std::vector<std::pair<int64_t, int64_t>> rows;  // rows, client
  for (auto const& [id, client] : run.clients)
    if (client.train_rows) rows.emplace_back(*client.train_rows, id);
  if (rows.empty()) return "";
  if (rows.size() <= kMostBars) {
    std::vector<Bar> bars;
    for (auto const& [count, id] : rows)
      bars.push_back({fmt::format("client {}", id), {static_cast<double>(count)}, std::to_string(count)});
    return "<div class=\"charts\">\n" + bars_html("training rows of each client", {"rows"}, bars) +
           "</div>\n";
  }
  std::ranges::sort(rows);
  Curve curve{"training rows of a client", {}};
  for (size_t i = 0; i < rows.size(); ++i)
    curve.points.push_back({static_cast<double>(i + 1), static_cast<double>(rows[i].first)});
  curve.points = thinned(std::move(curve.points), 1000);
  return "<div class=\"charts\">\n" +
         chart_html({curve.name, "", {curve}, {}, "clients, those with the fewest rows first", true}) +
         "</div>\n";
}

std::string times(RunData const& run) {
  Chart chart{"seconds of each phase", "a round", {}, {}, "round", true};
  for (std::string const phase : {"train", "aggregate", "evaluate", "tasks"})
    if (seconds_in(run, phase) > 0)
      chart.curves.push_back(plain_curve(run, phase, [&](RoundFacts const& round) {
        auto const found = round.seconds.find(phase);
        return found == round.seconds.end() ? 0 : found->second;
      }));
  auto drawn = chart_html(chart);
  std::vector<std::string> const phases{"train", "wait", "aggregate", "evaluate"};
  std::vector<std::pair<double, Bar>> ranks;
  for (auto const& [id, rank] : run.ranks) {
    Bar bar{fmt::format("rank {}", id), {}, ""};
    double sum = 0;
    for (auto const& phase : phases) {
      auto const found = rank.seconds.find(phase);
      bar.parts.push_back(found == rank.seconds.end() ? 0 : found->second);
      sum += bar.parts.back();
    }
    bar.note =
        fmt::format("{}, {}", duration_text(sum), bytes_text(static_cast<double>(rank.peak_rss_bytes)));
    ranks.emplace_back(bar.parts.front(), std::move(bar));
  }
  auto title = std::string("time and memory of each rank");
  if (ranks.size() > kMostBars) {
    std::ranges::stable_sort(ranks, [](auto const& a, auto const& b) { return a.first > b.first; });
    title =
        fmt::format("time and memory of the {} ranks of {} that trained longest", kMostBars, ranks.size());
    ranks.resize(kMostBars);
  }
  std::vector<Bar> bars;
  for (auto& [seconds, bar] : ranks) bars.push_back(std::move(bar));
  drawn += bars_html(title, phases, bars);
  auto const speed =
      curve_of(run, "tokens a second of training", [](auto const& round) { return round.tokens_per_second; });
  drawn += chart_html({speed.name, "", {speed}, {}, "round", true});
  return (drawn.empty() ? "" : "<div class=\"charts\">\n" + drawn + "</div>\n") +
         table_html(phases_table(run)) + table_html(ranks_table(run));
}

/// Bytes as MiB, or what fits.
std::string traffic_and_memory(RunData const& run) {
  auto const scaled = [&](std::string const& title,
                          std::vector<std::pair<std::string, int64_t RoundFacts::*>> const& of) {
    double most = 0;
    for (auto const& round : run.rounds)
      for (auto const& [name, member] : of) most = std::max(most, static_cast<double>(round.*member));
    if (most == 0) return std::string();
    double divisor = 1;
    std::string const unit = [&] {
      for (auto const* name : {"B", "KiB", "MiB", "GiB"}) {
        if (most < 1024 * divisor || std::string(name) == "GiB") return name;
        divisor *= 1024;
      }
      return "B";
    }();
    Chart chart{title, unit, {}, {}, "round", true};
    for (auto const& [name, member] : of)
      chart.curves.push_back(plain_curve(run, name, [&, at = member](RoundFacts const& round) {
        return static_cast<double>(round.*at) / divisor;
      }));
    return chart_html(chart);
  };
  auto drawn =
      scaled("bytes sent a round", {{"up", &RoundFacts::bytes_up}, {"down", &RoundFacts::bytes_down}});
  drawn +=
      scaled("memory of the largest rank", {{"memory of the largest rank", &RoundFacts::peak_rss_bytes}});
  drawn += scaled("memory of the GPU", {{"memory of the GPU", &RoundFacts::device_bytes}});
  return drawn.empty() ? "" : "<div class=\"charts\">\n" + drawn + "</div>\n";
}

}  // namespace

std::string report_html(RunData const& run) {
  auto body = fmt::format("<header>\n<h1>{}</h1>\n<p class=\"soft\">{}</p>\n", xml_text(run.name),
                          xml_text("run of fsllm_hpc in " + run.folder.string()));
  for (auto const& problem : run.problems)
    body += fmt::format("<p class=\"warning\">{}</p>\n", xml_text(problem));
  body += tiles_html(summary_of(run)) + "</header>\n<main>\n";
  body += section_html("Losses", losses(run));
  body += section_html("Tasks", table_html(tasks_table(run)));
  body += section_html("Clients", clients(run));
  body += section_html("Sampling", sampling(run));
  body += section_html("Split", split(run));
  body += section_html("Time", times(run));
  body += section_html("Traffic and memory", traffic_and_memory(run));
  body += section_html("Configuration", table_html(config_table(run)));
  body += section_html("Environment", table_html(environment_table(run)));
  return page_html(run.name + " – fsllm_hpc", body + "</main>\n");
}

}  // namespace fsllm
