// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/plan.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {

std::vector<int64_t> unseen_clients(FedConfig const& config, std::vector<int64_t> const& clients) {
  if (config.unseen_clients_rate <= 0) return {};
  auto const all = static_cast<double>(clients.size());
  auto const count = std::max<size_t>(1, static_cast<size_t>(config.unseen_clients_rate * all));
  FSLLM_CHECK(
      count < clients.size(),
      "federate.unseen_clients_rate = {} (of {} clients none would train). Lower it, or make more shards.",
      config.unseen_clients_rate, clients.size());
  auto chosen = clients;
  Philox(config.seed, Purpose::unseen_clients).shuffle(std::span<int64_t>(chosen));
  chosen.resize(count);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

namespace {

/// Clients that train in a round, of `all`.
size_t sample_size(FedConfig const& config, size_t all) {
  auto const count = static_cast<int64_t>(all);
  int64_t wanted = config.sample_client_num > 0 ? config.sample_client_num : count;
  if (config.sample_client_rate > 0)
    wanted =
        std::max<int64_t>(1, static_cast<int64_t>(config.sample_client_rate * static_cast<double>(count)));
  FSLLM_CHECK(wanted <= count,
              "federate.sample_client_num = {} (only {} clients take part). Lower it, or make more shards "
              "with federate.client_num.",
              wanted, count);
  return static_cast<size_t>(wanted);
}

void check_sampling(FedConfig const& config, size_t all) {
  auto const wanted = sample_size(config, all);
  if (config.asyn.use) updates_awaited(config.asyn, wanted);
  auto const candidates = config.sampler.candidates;
  FSLLM_CHECK(candidates == 0 || candidates >= static_cast<int64_t>(wanted),
              "federate.sampler_candidates = {} ({} clients train in a round). Raise it, or leave it out.",
              candidates, wanted);
}

}  // namespace

std::vector<int64_t> training_clients(FedConfig const& config, std::vector<int64_t> const& clients) {
  auto const taking_part = config.only_client > 0 ? std::vector{config.only_client} : clients;
  auto const unseen = unseen_clients(config, taking_part);
  std::vector<int64_t> trained;
  std::set_difference(taking_part.begin(), taking_part.end(), unseen.begin(), unseen.end(),
                      std::back_inserter(trained));
  if (config.algorithm.samples) check_sampling(config, trained.size());
  return trained;
}

std::string to_text(Schedule const& schedule) {
  auto at_work = nlohmann::json::array(), losses = nlohmann::json::array();
  for (auto const& turn : schedule.clock.at_work)
    at_work.push_back({turn.client, turn.version, turn.arrival});
  for (auto const& [client, loss] : schedule.sampler.losses) losses.push_back({client, loss});
  return nlohmann::json{{"time", schedule.clock.time},
                        {"at_work", at_work},
                        {"position", schedule.sampler.position},
                        {"losses", losses}}
      .dump();
}

Schedule parse_schedule(std::string const& text) {
  auto const json = nlohmann::json::parse(text);
  Schedule schedule;
  schedule.clock.time = json.at("time").get<double>();
  for (auto const& turn : json.at("at_work"))
    schedule.clock.at_work.push_back(
        {turn.at(0).get<int64_t>(), turn.at(1).get<int64_t>(), turn.at(2).get<double>()});
  schedule.sampler.position = json.at("position").get<int64_t>();
  for (auto const& loss : json.at("losses"))
    schedule.sampler.losses[loss.at(0).get<int64_t>()] = loss.at(1).get<double>();
  return schedule;
}

RoundPlan plan_round(FedConfig const& config, std::vector<TrainingClient> const& clients, int64_t round,
                     Schedule& schedule) {
  auto const draw = [&](std::vector<TrainingClient> from, size_t wanted, int64_t number) {
    return draw_clients(config.sampler, {config.seed, round, number, std::move(from), wanted, 0}, clients,
                        schedule.sampler);
  };
  auto const size = config.algorithm.samples ? sample_size(config, clients.size()) : clients.size();
  RoundPlan plan{round, 0, {}, {}};
  if (config.asyn.use)
    await_updates(config.asyn, clients, size, draw, plan, schedule.clock);
  else
    for (auto const& client : draw(clients, size, 0)) {
      if (plan.cohorts.empty() || std::ssize(plan.cohorts.back()) == config.clients_per_pass)
        plan.cohorts.emplace_back();
      plan.cohorts.back().push_back({client.id, round, 0});
    }
  weigh(config, clients, plan);
  return plan;
}

void weigh(FedConfig const& config, std::vector<TrainingClient> const& clients, RoundPlan& plan) {
  plan.all_clients = std::ssize(clients);
  double all = 0, staleness_sum = 0;
  int64_t stalest = 0;
  for (auto& cohort : plan.cohorts)
    for (auto& task : cohort) {
      auto const client = std::ranges::lower_bound(clients, task.client, {}, &TrainingClient::id);
      all += task.weight = config.ignore_weight ? 1.0 : client->rows;
      task.steps = client->steps;
      auto const staleness = plan.round - task.version;
      staleness_sum += static_cast<double>(staleness);
      stalest = std::max(stalest, staleness);
    }
  for (auto& cohort : plan.cohorts)
    for (auto& task : cohort) task.weight /= all;
  if (!plan.arrivals || plan.cohorts.empty()) return;
  plan.arrivals->staleness_mean = staleness_sum / static_cast<double>(plan.cohorts.size());
  plan.arrivals->staleness_max = stalest;
}

void note_losses(FedConfig const& config, ClientLosses const& losses, Schedule& schedule) {
  if (!config.sampler.uses_losses()) return;
  auto known = losses.find(config.selection.best_key.starts_with("val") ? "val" : "test");
  if (known == losses.end()) known = losses.begin();
  if (known == losses.end()) return;
  for (auto const& [client, loss] : known->second)
    if (loss.terms() > 0 && std::isfinite(loss.sum))
      schedule.sampler.losses[client] = loss.sum / static_cast<double>(loss.terms());
}

std::vector<std::vector<int64_t>> place_clients(std::vector<int64_t> const& clients,
                                                std::vector<double> const& costs, int ranks, int first_rank,
                                                std::vector<std::vector<int>> const& allowed) {
  std::vector<size_t> order(clients.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  std::vector<int> every(static_cast<size_t>(ranks));
  std::iota(every.begin(), every.end(), 0);
  std::vector<double> load(static_cast<size_t>(ranks), 0);
  std::vector<std::vector<int64_t>> by_rank(static_cast<size_t>(ranks));
  for (size_t const i : order) {
    int chosen = -1;
    for (int const rank : allowed.empty() || allowed[i].empty() ? every : allowed[i])
      if (rank >= first_rank &&
          (chosen < 0 || load[static_cast<size_t>(rank)] < load[static_cast<size_t>(chosen)]))
        chosen = rank;
    FSLLM_CHECK(
        chosen >= 0,
        "client {} lies on rank 0 alone (hpc.server_trains: False: rank 0 trains nobody). Set it to True, or "
        "move the shard.",
        clients[i]);
    by_rank[static_cast<size_t>(chosen)].push_back(clients[i]);
    load[static_cast<size_t>(chosen)] += costs[i];
  }
  return by_rank;
}

}  // namespace fsllm
