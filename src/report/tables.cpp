// SPDX-License-Identifier: Apache-2.0
#include "tables.hpp"

#include <fmt/chrono.h>
#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "fsllm/core/progress.hpp"

namespace fsllm::detail {
namespace {

constexpr size_t kMostClients = 5000;
constexpr char const* kNothing = "–";

std::string shown(std::optional<double> const& loss) {
  return loss ? loss_text(*loss) : kNothing;
}

std::string shown(std::optional<int64_t> const& count) {
  return count ? std::to_string(*count) : kNothing;
}

std::string seconds_text(double seconds) {
  return fmt::format("{:.2f}", seconds);
}

std::optional<double> loss_in(RoundFacts const& round, std::string const& split) {
  auto const found = round.losses.find(split);
  return found == round.losses.end() ? std::nullopt : std::optional(found->second);
}

double second_of(std::map<std::string, double> const& seconds, std::string const& phase) {
  auto const found = seconds.find(phase);
  return found == seconds.end() ? 0 : found->second;
}

/// The loss that clients are ordered by.
double deciding_loss(ClientFacts const& client) {
  if (!client.losses.empty()) return client.losses.rbegin()->second.second;
  return client.train_loss.value_or(0);
}

/// For tiles and lines.
std::string short_loss(std::optional<double> const& loss) {
  return loss ? fmt::format("{:.4f}", *loss) : kNothing;
}

/// Without the columns that say nothing in any row.
Table without_empty_columns(Table table) {
  for (size_t c = table.header.size(); c-- > 0;) {
    auto const is_empty = [&](auto const& row) { return row[c] == kNothing; };
    if (table.rows.empty() || !std::ranges::all_of(table.rows, is_empty)) continue;
    table.header.erase(table.header.begin() + static_cast<std::ptrdiff_t>(c));
    for (auto& row : table.rows) row.erase(row.begin() + static_cast<std::ptrdiff_t>(c));
  }
  return table;
}

std::string state_of(RunData const& run) {
  auto const rounds = run.planned_rounds > 0 ? fmt::format("{} of {} rounds", run.done(), run.planned_rounds)
                                             : fmt::format("{} rounds", run.done());
  if (run.stopped_early) return rounds + ", stopped early";
  return rounds + (run.finished ? "" : ", not finished");
}

}  // namespace

std::string bytes_text(double bytes) {
  constexpr char const* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  return unit == 0 || bytes >= 100 ? fmt::format("{:.0f} {}", bytes, kUnits[unit])
                                   : fmt::format("{:.3g} {}", bytes, kUnits[unit]);
}

std::string loss_text(double loss) {
  return fmt::format("{:.6f}", loss);
}

std::string time_text(double seconds) {
  return fmt::format("{:%Y-%m-%d %H:%M} UTC",
                     fmt::gmtime(static_cast<std::time_t>(std::clamp(seconds, 0.0, 2.5e11))));
}

std::vector<std::pair<std::string, std::string>> summary_of(RunData const& run) {
  std::vector<std::pair<std::string, std::string>> facts{{"state", state_of(run)}};
  auto const splits = held_out_splits(run);
  if (auto const best = best_loss(run))
    facts.emplace_back("best " + splits.front() + " loss",
                       fmt::format("{} (round {})", short_loss(best->second), best->first));
  for (auto const& split : splits) {
    std::optional<double> first, last;
    for (auto const& round : run.rounds)
      if (auto const loss = loss_in(round, split)) {
        if (!first) first = loss;
        last = loss;
      }
    facts.emplace_back(split + " loss", fmt::format("{} → {}", short_loss(first), short_loss(last)));
  }
  if (auto const* last = run.last(); last != nullptr)
    if (auto const loss = loss_in(*last, "train")) facts.emplace_back("train loss", short_loss(loss));
  std::set<int64_t> trained;
  for (auto const& [round, client] : run.turns) trained.insert(client);
  facts.emplace_back("clients",
                     trained.size() == run.clients.size()
                         ? fmt::format("{}", run.clients.size())
                         : fmt::format("{}, of which {} trained", run.clients.size(), trained.size()));
  if (!run.ranks.empty()) facts.emplace_back("ranks", std::to_string(run.ranks.size()));
  double up = 0, down = 0, tokens = 0, memory = 0;
  for (auto const& round : run.rounds) {
    up += static_cast<double>(round.bytes_up);
    down += static_cast<double>(round.bytes_down);
    tokens += static_cast<double>(round.tokens);
    memory = std::max(memory, static_cast<double>(round.peak_rss_bytes));
  }
  facts.emplace_back("time of all rounds", duration_text(seconds_in(run, "")));
  if (double const train = seconds_in(run, "train"); train > 0)
    facts.emplace_back("tokens trained", fmt::format("{:.0f}, {:.0f} a second", tokens, tokens / train));
  facts.emplace_back("sent", fmt::format("{} up, {} down", bytes_text(up), bytes_text(down)));
  facts.emplace_back("memory", bytes_text(memory) + " on the largest rank");
  if (auto const model = run.setting("model.type"); !model.empty())
    facts.emplace_back("model", std::filesystem::path(model).filename().string());
  for (auto const* key : {"federate.method", "data.type", "data.splitter", "seed"})
    if (auto const value = run.setting(key); !value.empty()) facts.emplace_back(key, value);
  if (run.ended) facts.emplace_back("last round", time_text(*run.ended));
  return facts;
}

Table rounds_table(RunData const& run) {
  Table table{"rounds", {"round"}, {}};
  auto splits = held_out_splits(run);
  splits.insert(splits.begin(), "train");
  for (auto const& split : splits) table.header.push_back(split + " loss");
  bool const errors =
      std::ranges::any_of(run.rounds, [](auto const& round) { return round.aggregation_error.has_value(); });
  if (errors) table.header.emplace_back("aggregation error");
  for (auto const* name : {"clients", "tokens/s", "seconds", "up", "down", "memory"})
    table.header.emplace_back(name);
  for (auto const& round : run.rounds) {
    std::vector<std::string> row{fmt::format("{}{}", round.round, round.best ? " *" : "")};
    for (auto const& split : splits) row.push_back(shown(loss_in(round, split)));
    if (errors)
      row.push_back(round.aggregation_error ? fmt::format("{:.3g}", *round.aggregation_error) : kNothing);
    double seconds = 0;
    for (auto const* phase : {"train", "aggregate", "evaluate", "tasks"})
      seconds += second_of(round.seconds, phase);
    row.push_back(std::to_string(round.clients));
    row.push_back(round.tokens_per_second ? fmt::format("{:.0f}", *round.tokens_per_second) : kNothing);
    row.push_back(seconds_text(seconds));
    row.push_back(bytes_text(static_cast<double>(round.bytes_up)));
    row.push_back(bytes_text(static_cast<double>(round.bytes_down)));
    row.push_back(bytes_text(static_cast<double>(round.peak_rss_bytes)));
    table.rows.push_back(std::move(row));
  }
  table.note = "Losses are means " +
               std::string(run.loss_name == "loss_per_pair" ? "a pair" : "a target token") +
               "; round 0 is the model before training; * marks the best model so far.";
  return without_empty_columns(std::move(table));
}

Table clients_table(RunData const& run) {
  Table table{"clients", {"client", "train rows", "turns", "train loss, last turn"}, {}};
  auto const splits = held_out_splits(run);
  for (auto const& split : splits) {
    table.header.push_back(split + " loss, first");
    table.header.push_back("last");
  }
  for (auto const* name : {"train tokens", "val rows", "test rows", "seconds"})
    table.header.emplace_back(name);
  std::vector<std::pair<int64_t, ClientFacts const*>> order;
  for (auto const& [id, client] : run.clients) order.emplace_back(id, &client);
  if (order.size() > kMostClients) {
    std::ranges::stable_sort(order, [](auto const& a, auto const& b) {
      return deciding_loss(*a.second) > deciding_loss(*b.second);
    });
    order.resize(kMostClients);
    table.note = fmt::format("The {} clients with the largest loss of {}; all are in metrics_clients.jsonl.",
                             kMostClients, run.clients.size());
  }
  for (auto const& [id, client] : order) {
    std::vector<std::string> row{std::to_string(id), shown(client->train_rows), std::to_string(client->turns),
                                 shown(client->train_loss)};
    for (auto const& split : splits) {
      auto const found = client->losses.find(split);
      bool const judged = found != client->losses.end();
      row.push_back(judged ? loss_text(found->second.first) : kNothing);
      row.push_back(judged ? loss_text(found->second.second) : kNothing);
    }
    row.push_back(shown(client->train_tokens));
    row.push_back(shown(client->val_rows));
    row.push_back(shown(client->test_rows));
    row.push_back(seconds_text(client->seconds));
    table.rows.push_back(std::move(row));
  }
  return without_empty_columns(std::move(table));
}

Table ranks_table(RunData const& run) {
  Table table{
      "ranks", {"rank", "turns", "tokens", "train s", "wait s", "aggregate s", "evaluate s", "memory"}, {}};
  for (auto const& [id, rank] : run.ranks) {
    std::vector<std::string> row{std::to_string(id), std::to_string(rank.turns), std::to_string(rank.tokens)};
    for (auto const* phase : {"train", "wait", "aggregate", "evaluate"})
      row.push_back(seconds_text(second_of(rank.seconds, phase)));
    row.push_back(bytes_text(static_cast<double>(rank.peak_rss_bytes)));
    table.rows.push_back(std::move(row));
  }
  table.note =
      "Seconds of all rounds. A rank waits for those that still train; aggregation includes the way of the "
      "bytes.";
  return table;
}

Table phases_table(RunData const& run) {
  Table table{"phases", {"phase", "seconds", "share", "seconds a round"}, {}, "", 1};
  double const all = seconds_in(run, "");
  for (auto const* phase : {"train", "aggregate", "evaluate", "tasks"}) {
    double const seconds = seconds_in(run, phase);
    if (seconds > 0)
      table.rows.push_back(
          {phase, seconds_text(seconds), fmt::format("{:.1f} %", 100 * seconds / all),
           fmt::format("{:.3f}", seconds / static_cast<double>(std::max<int64_t>(1, run.done())))});
  }
  return table;
}

Table tasks_table(RunData const& run) {
  Table table{"tasks", {"round"}, {}};
  std::set<std::string> names;
  for (auto const& round : run.rounds)
    for (auto const& [name, value] : round.tasks) names.insert(name);
  table.header.insert(table.header.end(), names.begin(), names.end());
  for (auto const& round : run.rounds) {
    if (round.tasks.empty()) continue;
    std::vector<std::string> row{std::to_string(round.round)};
    for (auto const& name : names) {
      auto const found = round.tasks.find(name);
      row.push_back(found == round.tasks.end() ? kNothing : fmt::format("{:.4f}", found->second));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table config_table(RunData const& run) {
  Table table{"configuration", {"key", "value"}, {}, "", 2};
  for (auto const& [key, value] : run.config) table.rows.push_back({key, value});
  return table;
}

Table environment_table(RunData const& run) {
  Table table{"environment", {"of", "value"}, {}, "", 2};
  if (!run.environment.is_array()) return table;
  for (auto const& place : run.environment) {
    if (!place.is_object()) continue;
    for (auto const& [key, value] : place.items())
      if (!value.is_null())
        table.rows.push_back({key, value.is_string() ? value.get<std::string>() : value.dump()});
  }
  return table;
}

}  // namespace fsllm::detail
