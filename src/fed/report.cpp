// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/report.hpp"

#include <fmt/core.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "fsllm/comm/gather.hpp"
#include "fsllm/core/progress.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kClientsInEvalResults = 100;

/// Sums of the clients' training results, in client order.
TrainResult sum_of(std::vector<ClientReport> const& clients) {
  TrainResult sum;
  for (auto const& client : clients) sum += client.result;
  return sum;
}

/// Of a loss: per target, or per pair.
double mean_of(double sum, int64_t terms) {
  return terms > 0 ? sum / static_cast<double>(terms) : 0;
}

double mean_loss(TrainResult const& result) {
  return mean_of(result.loss_sum, result.terms());
}

double mean_loss(SplitLoss const& loss) {
  return mean_of(loss.sum, loss.terms());
}

char const* loss_name(bool of_pairs) {
  return of_pairs ? "loss_per_pair" : "loss_per_token";
}

Json train_json(TrainResult const& result) {
  Json json{{loss_name(result.of_pairs), mean_loss(result)},
            {"tokens", result.tokens},
            {"targets", result.targets},
            {"samples", result.samples},
            {"steps", result.steps},
            {"skipped_steps", result.skipped_steps}};
  if (result.loss_scale > 0) {
    json["overflow_steps"] = result.overflow_steps;
    json["loss_scale"] = result.loss_scale;
  }
  if (result.redrawn > 0) json["redrawn"] = result.redrawn;
  return json;
}

/// Of the values of all clients; in between, as numpy.quantile does it. What is not a number comes last.
Json quantiles(std::vector<double> values) {
  std::ranges::sort(values, [](double a, double b) { return a < b || (std::isnan(b) && !std::isnan(a)); });
  auto const at = [&](double share) {
    double const place = share * static_cast<double>(values.size() - 1);
    auto const low = static_cast<size_t>(place), high = std::min(low + 1, values.size() - 1);
    double const beyond = place - static_cast<double>(low);
    return beyond == 0 ? values[low] : values[low] + beyond * (values[high] - values[low]);
  };
  return {{"min", at(0)}, {"p10", at(0.1)}, {"p50", at(0.5)}, {"p90", at(0.9)}, {"max", at(1)}};
}

/// How differently clients fare, all counting alike: mean, variance (of all, not a sample), and the mean of
/// the worst tenth of them, at least one (Li et al. 2020, "Fair Resource Allocation in Federated Learning",
/// table 1).
Json fairness(std::vector<double> losses) {
  std::ranges::sort(losses, [](double a, double b) { return std::isnan(a) ? !std::isnan(b) : a > b; });
  auto const mean = [](auto begin, auto end) {
    return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
  };
  double const all = mean(losses.begin(), losses.end());
  double variance = 0;
  for (double const loss : losses)
    variance += (loss - all) * (loss - all) / static_cast<double>(losses.size());
  auto const worst = std::max<std::ptrdiff_t>(1, std::ssize(losses) / 10);
  return {{"mean", all},
          {"worst_10_percent", mean(losses.begin(), losses.begin() + worst)},
          {"variance", variance}};
}

/// `value` of each element.
template <class Elements, class Value>
Json quantiles_of(Elements const& elements, Value const& value) {
  std::vector<double> values;
  for (auto const& element : elements) values.push_back(value(element));
  return quantiles(std::move(values));
}

Json loss_json(SplitLoss const& loss) {
  Json json{{loss_name(loss.of_pairs), mean_loss(loss)}};
  if (loss.of_pairs) {
    json["reward_accuracy"] = mean_of(static_cast<double>(loss.wins), loss.pairs);
    json["reward_margin"] = mean_of(loss.margin, loss.pairs);
  }
  json["targets"] = loss.targets;
  json["rows"] = loss.rows;
  return json;
}

double seconds_of(RoundReport const& report, std::string const& phase) {
  auto const found = report.seconds.find(phase);
  return found == report.seconds.end() ? 0 : found->second;
}

std::string results_text(std::map<std::string, SplitLoss> const& by_split) {
  std::string text;
  for (auto const& [split, loss] : by_split) {
    if (!text.empty()) text += ", ";
    text += fmt::format("'{0}_total': {1}, '{0}_loss': {2}, '{0}_avg_loss': {3}", split, loss.rows, loss.sum,
                        mean_loss(loss));
    if (loss.of_pairs)
      text += fmt::format(", '{}_acc': {}", split, mean_of(static_cast<double>(loss.wins), loss.pairs));
  }
  return text;
}

std::string server_line(std::string const& role, ClientLosses const& losses, int64_t round) {
  std::map<std::string, SplitLoss> mean;
  for (auto const& [split, of_clients] : losses) mean[split] = total(of_clients);
  return fmt::format("{{'Role': '{}', 'Round': {}, 'Results_weighted_avg': {{{}}}}}\n", role, round,
                     results_text(mean));
}

}  // namespace

std::vector<ClientReport> gather_reports(std::vector<ClientReport> const& mine, Communicator const& comm) {
  auto all = all_gather(mine, comm);
  std::sort(all.begin(), all.end(), [](auto const& a, auto const& b) {
    return std::pair(a.client, a.version) < std::pair(b.client, b.version);
  });
  return all;
}

void PhaseClock::lap(std::string const& phase) {
  auto const now = std::chrono::steady_clock::now();
  seconds_[phase] += std::chrono::duration<double>(now - last_).count();
  last_ = now;
}

void measure_ranks(RoundReport& report, Collective& collective, Traffic const& before, RankReport own,
                   Communicator const& all_ranks) {
  auto const now = collective.traffic();
  report.bytes_up = all_ranks.sum(now.reduce_bytes - before.reduce_bytes);
  report.bytes_down = all_ranks.sum(now.broadcast_bytes - before.broadcast_bytes);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  own.rank = all_ranks.rank();
  own.peak_rss_bytes = int64_t{usage.ru_maxrss} * 1024;
  report.ranks = all_gather(std::vector{own}, all_ranks);
  report.peak_rss_bytes = std::ranges::max(report.ranks, {}, &RankReport::peak_rss_bytes).peak_rss_bytes;
}

nlohmann::ordered_json to_json(ClientLosses const& losses) {
  auto json = Json::object();
  for (auto const& [split, of_clients] : losses) {
    auto const all = total(of_clients);
    auto& entry = json[split] = loss_json(all);
    entry["clients"] = of_clients.size();
    entry["quantiles"][loss_name(all.of_pairs)] =
        quantiles_of(of_clients, [](auto const& client) { return mean_loss(client.second); });
    std::vector<double> values;
    for (auto const& [client, loss] : of_clients) values.push_back(mean_loss(loss));
    entry["fairness"] = fairness(std::move(values));
  }
  return json;
}

nlohmann::ordered_json to_json(RoundReport const& report) {
  Json event{{"event", report.round == 0 ? "start" : "round"}, {"round", report.round}};
  if (!report.clients.empty()) {
    auto const all = sum_of(report.clients);
    auto& train = event["train"] = train_json(all);
    train["clients"] = report.clients.size();
    train["quantiles"] = {
        {loss_name(all.of_pairs),
         quantiles_of(report.clients, [](auto const& client) { return mean_loss(client.result); })},
        {"update_norm", quantiles_of(report.clients, [](auto const& client) { return client.update_norm; })}};
  }
  if (auto const& arrivals = report.arrivals) {
    auto& entry = event["asyn"];
    if (arrivals->virtual_seconds) entry["virtual_seconds"] = *arrivals->virtual_seconds;
    entry["staleness"] = {{"mean", arrivals->staleness_mean}, {"max", arrivals->staleness_max}};
    entry["dropped"] = arrivals->dropped;
  }
  event.update(to_json(report.losses));
  if (!report.judged.empty()) event["judged"] = report.judged;
  for (auto const& [name, value] : report.facts) event[name] = value;
  event["best"] = report.best;
  event["bytes_up"] = report.bytes_up;
  event["bytes_down"] = report.bytes_down;
  if (report.bytes_in_groups > 0) event["bytes_in_groups"] = report.bytes_in_groups;
  event["seconds"] = report.seconds;
  if (double const seconds = seconds_of(report, "train"); seconds > 0)
    event["tokens_per_second"] = static_cast<double>(sum_of(report.clients).tokens) / seconds;
  event["peak_rss_bytes"] = report.peak_rss_bytes;
  if (report.device_bytes > 0) event["device_bytes"] = report.device_bytes;
  return event;
}

std::vector<Json> client_lines(RoundReport const& report) {
  std::map<int64_t, std::vector<Json>> lines;
  auto const add_line = [&](int64_t client) -> Json& {
    return lines[client].emplace_back(Json{{"round", report.round}, {"client", client}});
  };
  for (auto const& client : report.clients) {
    auto& train = add_line(client.client)["train"] = train_json(client.result);
    train["update_norm"] = client.update_norm;
    train["seconds"] = client.result.seconds;
    if (report.arrivals) train["staleness"] = report.round - 1 - client.version;
  }
  for (auto const& [split, losses] : report.losses)
    for (auto const& [client, loss] : losses)
      (lines.contains(client) ? lines[client].front() : add_line(client))[split] = loss_json(loss);
  std::vector<Json> all;
  for (auto& [client, of_client] : lines)
    all.insert(all.end(), std::make_move_iterator(of_client.begin()),
               std::make_move_iterator(of_client.end()));
  return all;
}

std::vector<Json> rank_lines(RoundReport const& report, double time) {
  std::vector<Json> lines;
  for (auto const& rank : report.ranks) {
    Json line{{"round", report.round}, {"rank", rank.rank}};
    if (rank.rank == 0) line["time"] = time;
    line["turns"] = rank.turns;
    line["tokens"] = rank.tokens;
    line["seconds"] = {{"train", rank.train},
                       {"wait", rank.wait},
                       {"aggregate", rank.aggregate},
                       {"evaluate", rank.evaluate}};
    line["peak_rss_bytes"] = rank.peak_rss_bytes;
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string average_result_line(ClientLosses const& losses, int64_t round) {
  return server_line("Server SWA#", losses, round);
}

std::string eval_result_lines(RoundReport const& report) {
  std::map<int64_t, std::map<std::string, SplitLoss>> by_client;
  for (auto const& [split, losses] : report.losses)
    for (auto const& [client, loss] : losses) by_client[client][split] = loss;
  std::string lines;
  for (auto const& [client, by_split] : by_client) {
    if (by_client.size() > kClientsInEvalResults) break;
    lines += fmt::format("{{'Role': 'Client #{}', 'Round': {}, 'Results_raw': {{{}}}}}\n", client,
                         report.round, results_text(by_split));
  }
  if (!report.losses.empty()) lines += server_line("Server #", report.losses, report.round);
  return lines;
}

std::string round_line(RoundReport const& report, int64_t rounds, std::optional<double> seconds_left) {
  std::string line =
      report.round == 0 ? "before training:" : fmt::format("round {}/{}:", report.round, rounds);
  auto const train = sum_of(report.clients);
  if (train.terms() > 0) line += fmt::format(" train loss {:.4f},", mean_loss(train));
  for (auto const& [split, losses] : report.losses) {
    auto const loss = total(losses);
    if (loss.terms() > 0) line += fmt::format(" {} loss {:.4f},", split, mean_loss(loss));
    if (loss.of_pairs)
      line += fmt::format(" {} accuracy {:.3f},", split, mean_of(static_cast<double>(loss.wins), loss.pairs));
  }
  if (!report.judged.empty() && !report.losses.empty()) {
    line.pop_back();
    line += fmt::format(" of the {},", report.judged);
  }
  if (auto const error = report.facts.find("aggregation_error"); error != report.facts.end())
    line += fmt::format(" aggregation error {:.2g},", error->second);
  if (train.overflow_steps > 0)
    line += fmt::format(" {} of {} steps overflowed (loss scale {:g}),", train.overflow_steps, train.steps,
                        train.loss_scale);
  if (report.best) line += " best so far,";
  if (double const seconds = seconds_of(report, "train"); seconds > 0)
    line += fmt::format(" {:.0f} tokens/s,", static_cast<double>(train.tokens) / seconds);
  if (seconds_left) line += fmt::format(" {} left,", duration_text(*seconds_left));
  if (report.round > 0 && report.ranks.size() > 1) {
    auto const& slowest = *std::ranges::max_element(report.ranks, {}, &RankReport::train);
    double all = 0;
    for (auto const& rank : report.ranks) all += rank.train;
    line += fmt::format(" slowest rank {} ({:.3g} s of training, mean {:.3g} s),", slowest.rank,
                        slowest.train, all / static_cast<double>(report.ranks.size()));
  }
  if (report.round > 0 && report.peak_rss_bytes > 0)
    line += fmt::format(" {:.0f} MiB,", static_cast<double>(report.peak_rss_bytes) / 1048576);
  line.pop_back();
  return line;
}

nlohmann::ordered_json last_event(std::filesystem::path const& metrics, std::string const& kind) {
  auto last = nlohmann::ordered_json::object();
  if (!std::filesystem::exists(metrics)) return last;
  std::istringstream lines(read_file(metrics));
  for (std::string line; std::getline(lines, line);) {
    auto event = nlohmann::ordered_json::parse(line, nullptr, false);
    if (event.is_object() && (event.value("event", "") == "tasks") == (kind == "tasks"))
      last = std::move(event);
  }
  return last;
}

}  // namespace fsllm
