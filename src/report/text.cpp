// SPDX-License-Identifier: Apache-2.0
#include "text.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "fsllm/report/report.hpp"

namespace fsllm {
namespace detail {
namespace {

constexpr size_t kMostRows = 40;

/// Columns that a text takes, for the letters that tables have.
size_t width_of(std::string const& text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string padded(std::string const& text, size_t width, bool left) {
  std::string const space(width - std::min(width, width_of(text)), ' ');
  return left ? text + space : space + text;
}

}  // namespace

std::string table_text(Table const& table) {
  if (table.rows.empty()) return "";
  std::vector<std::vector<std::string>> rows{table.header};
  size_t const head = table.rows.size() > kMostRows ? kMostRows / 2 : table.rows.size();
  rows.insert(rows.end(), table.rows.begin(), table.rows.begin() + static_cast<std::ptrdiff_t>(head));
  if (head < table.rows.size())
    rows.insert(rows.end(), table.rows.end() - static_cast<std::ptrdiff_t>(kMostRows / 2), table.rows.end());
  std::vector<size_t> widths(table.header.size(), 0);
  for (auto const& row : rows)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  std::string text = "\n" + table.title + "\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    if (r == head + 1) text += fmt::format("  ... {} rows between\n", table.rows.size() - kMostRows);
    std::string line;
    for (size_t c = 0; c < rows[r].size(); ++c) line += "  " + padded(rows[r][c], widths[c], c < table.texts);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text + (table.note.empty() ? "" : "  " + table.note + "\n");
}

std::string facts_text(std::vector<std::pair<std::string, std::string>> const& facts) {
  size_t width = 0;
  for (auto const& [name, value] : facts) width = std::max(width, width_of(name));
  std::string text;
  for (auto const& [name, value] : facts) text += fmt::format("  {}  {}\n", padded(name, width, true), value);
  return text;
}

}  // namespace detail

std::string report_text(RunData const& run) {
  using namespace detail;
  auto text = fmt::format("run {} in {}\n", run.name, run.folder.string());
  for (auto const& problem : run.problems) text += "  warning: " + problem + "\n";
  text += facts_text(summary_of(run));
  for (auto const& table : {rounds_table(run), tasks_table(run), clients_table(run), phases_table(run),
                            ranks_table(run), environment_table(run)})
    text += table_text(table);
  return text;
}

nlohmann::ordered_json report_json(RunData const& run) {
  using Json = nlohmann::ordered_json;
  Json json{{"rounds_done", run.done()}, {"rounds_planned", run.planned_rounds},
            {"loss", run.loss_name},     {"problems", run.problems},
            {"rounds", Json::array()},   {"clients", Json::array()},
            {"ranks", Json::array()}};
  if (auto const best = best_loss(run)) json["best"] = {{"round", best->first}, {"loss", best->second}};
  for (auto const& round : run.rounds) {
    Json row{{"round", round.round}};
    row.update(Json(round.losses));
    if (round.aggregation_error) row["aggregation_error"] = *round.aggregation_error;
    if (!round.tasks.empty()) row["tasks"] = round.tasks;
    row["bytes_up"] = round.bytes_up;
    row["bytes_down"] = round.bytes_down;
    row["peak_rss_bytes"] = round.peak_rss_bytes;
    row["seconds"] = round.seconds;
    json["rounds"].push_back(std::move(row));
  }
  for (auto const& [id, client] : run.clients) {
    Json row{{"client", id}, {"turns", client.turns}, {"seconds", client.seconds}};
    if (client.train_rows) row["train_rows"] = *client.train_rows;
    if (client.train_loss) row["train"] = *client.train_loss;
    for (auto const& [split, losses] : client.losses) row[split] = losses.second;
    json["clients"].push_back(std::move(row));
  }
  for (auto const& [id, rank] : run.ranks)
    json["ranks"].push_back({{"rank", id},
                             {"turns", rank.turns},
                             {"tokens", rank.tokens},
                             {"seconds", rank.seconds},
                             {"peak_rss_bytes", rank.peak_rss_bytes}});
  return json;
}

}  // namespace fsllm
