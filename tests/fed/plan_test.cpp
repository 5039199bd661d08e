// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/plan.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

FedConfig config_of(std::string const& yaml) {
  auto config = Config::parse(yaml, "test.yaml");
  return load_fed_config(config);
}

/// Ten clients; client k has 10 k rows and needs k² seconds.
std::vector<TrainingClient> ten_clients() {
  std::vector<TrainingClient> clients;
  for (int64_t k = 1; k <= 10; ++k)
    clients.push_back({k, 10.0 * static_cast<double>(k), static_cast<double>(k * k)});
  return clients;
}
std::vector<int64_t> const kTen{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

std::vector<int64_t> clients_of(RoundPlan const& plan) {
  std::vector<int64_t> clients;
  for (auto const& task : tasks(plan)) clients.push_back(task.client);
  return clients;
}

std::vector<int64_t> sample(FedConfig const& config, int64_t round, Schedule schedule = {}) {
  return clients_of(plan_round(config, ten_clients(), round, schedule));
}

/// How often each client was chosen in `rounds` rounds; each time without doubles and in order.
std::map<int64_t, int> times_chosen(FedConfig const& config, int rounds, Schedule schedule = {}) {
  std::map<int64_t, int> times;
  for (int round = 0; round < rounds; ++round) {
    auto const chosen = clients_of(plan_round(config, ten_clients(), round, schedule));
    EXPECT_TRUE(std::ranges::is_sorted(chosen, std::less_equal<>())) << round;
    for (int64_t const client : chosen) ++times[client];
  }
  return times;
}

TEST(Sampling, TakesAllByDefault) {
  EXPECT_EQ(sample(config_of(""), 0), kTen);
}

TEST(Sampling, IsUniformWithoutReplacement) {
  auto const times = times_chosen(config_of("federate: {sample_client_num: 3}"), 4000);
  // Each client is drawn in 3 of 10 rounds: binomial with standard deviation 29.
  for (int64_t const client : kTen) EXPECT_NEAR(times.at(client), 1200, 5 * 29) << client;
}

TEST(Sampling, RateGoesBeforeNumber) {
  EXPECT_EQ(sample(config_of("federate: {sample_client_num: 3, sample_client_rate: 0.55}"), 0).size(), 5U);
  EXPECT_EQ(sample(config_of("federate: {sample_client_rate: 0.01}"), 0).size(), 1U);
}

TEST(Sampling, ImpossibleNumbersAreErrors) {
  EXPECT_ERROR(training_clients(config_of("federate: {sample_client_num: 40}"), kTen),
               "federate.sample_client_num = 40 (only 10 clients");
  EXPECT_ERROR(training_clients(config_of("federate: {sample_client_num: 4, sampler: power_of_choice, "
                                          "sampler_candidates: 3}"),
                                kTen),
               "federate.sampler_candidates = 3 (4 clients train in a round)");
  EXPECT_ERROR(config_of("federate: {sampler: groups}"), "Did you mean 'group'?");
}

TEST(Sampling, WeightsAreSharesOfTheRowsThatTrain) {
  Schedule schedule;
  for (auto const& [yaml, power] : std::map<std::string, int>{{"", 1}, {", ignore_weight: True", 0}}) {
    auto const plan =
        plan_round(config_of("federate: {sample_client_num: 4" + yaml + "}"), ten_clients(), 5, schedule);
    double all = 0;
    for (auto const& task : tasks(plan)) all += std::pow(10.0 * static_cast<double>(task.client), power);
    for (auto const& task : tasks(plan)) {
      EXPECT_DOUBLE_EQ(task.weight, std::pow(10.0 * static_cast<double>(task.client), power) / all);
      EXPECT_EQ(task.version, 5);
    }
  }
}

/// √(k²) = k: the first of each draw is client k with probability k / 55.
TEST(Sampling, ResponsivenessFollowsTheRootOfTheTime) {
  auto const times =
      times_chosen(config_of("federate: {sampler: responsiveness, sample_client_num: 1}"), 5500);
  for (int64_t const k : kTen) {
    double const share = static_cast<double>(k) / 55;
    EXPECT_NEAR(times.at(k), 5500 * share, 5 * std::sqrt(5500 * share * (1 - share))) << k;
  }
  // Of two, client 10 is one with probability 10/55 + Σ_k k/55 · 10/(55 - k).
  double both = 10.0 / 55;
  for (int k = 1; k < 10; ++k) both += k / 55.0 * 10 / (55 - k);
  auto const pairs =
      times_chosen(config_of("federate: {sampler: responsiveness, sample_client_num: 2}"), 5500);
  EXPECT_NEAR(pairs.at(10), 5500 * both, 5 * std::sqrt(5500 * both * (1 - both)));
}

/// Twenty-four clients in groups of two, the last of six, by speed: a pass takes each once, group by group.
TEST(Sampling, GroupPassesOverAllByGroupsOfLikeSpeed) {
  std::vector<TrainingClient> clients;
  for (int64_t k = 1; k <= 24; ++k) clients.push_back({k, 1, static_cast<double>(k * 7 % 24)});
  auto const group_of = [&](int64_t client) {
    return std::min<int64_t>(client * 7 % 24 / 2, 9);  // place among the sorted
  };
  auto const config = config_of("federate: {sampler: group, sample_client_num: 1}");
  Schedule schedule;
  std::set<std::vector<int64_t>> passes;
  for (int pass = 0; pass < 3; ++pass) {
    std::vector<int64_t> order, groups;
    for (int round = 24 * pass; round < 24 * (pass + 1); ++round) {
      order.push_back(clients_of(plan_round(config, clients, round, schedule)).at(0));
      auto const group = group_of(order.back());
      if (groups.empty() || groups.back() != group) groups.push_back(group);
      if (round % 7 == 0) schedule = parse_schedule(to_text(schedule));  // as after a resume
    }
    EXPECT_EQ(groups.size(), 10U);
    EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 24U);
    passes.insert(order);
  }
  EXPECT_EQ(passes.size(), 3U) << "each pass has an order of its own";
}

/// A sample that ends one pass and begins the next passes by whom it has already.
TEST(Sampling, GroupTakesNobodyTwice) {
  auto const times = times_chosen(config_of("federate: {sampler: group, sample_client_num: 7}"), 100);
  for (int64_t const client : kTen) EXPECT_NEAR(times.at(client), 70, 30) << client;
}

ClientLosses losses_of(std::map<int64_t, double> const& means) {
  ClientLosses losses;
  for (auto const& [client, mean] : means) losses["val"][client] = {mean * 4, 4, 1};
  return losses;
}

TEST(Sampling, PowerOfChoiceTakesTheHighestLossesOfItsCandidates) {
  auto const config =
      config_of("federate: {sampler: power_of_choice, sample_client_num: 3, sampler_candidates: 10}");
  Schedule schedule;
  // All are candidates: no chance is left. Client 7 was never evaluated, 2 diverged.
  note_losses(config, losses_of({{1, 1}, {2, 9}, {3, 3}, {4, 8}, {5, 2}, {6, 5}, {8, 4}, {9, 6}, {10, 7}}),
              schedule);
  note_losses(config, losses_of({{2, NAN}, {4, 0.5}}), schedule);
  EXPECT_EQ(sample(config, 0, parse_schedule(to_text(schedule))), (std::vector<int64_t>{2, 7, 10}));
  // Of one candidate nothing is left to choose: shares of the rows.
  auto const times = times_chosen(
      config_of("federate: {sampler: power_of_choice, sample_client_num: 1, sampler_candidates: 1}"), 5500,
      schedule);
  for (int64_t const k : kTen) {
    double const share = static_cast<double>(k) / 55;
    EXPECT_NEAR(times.at(k), 5500 * share, 5 * std::sqrt(5500 * share * (1 - share))) << k;
  }
  // Of two candidates the one with the higher loss: client 1, with a loss of 1, only beside 4 or never.
  auto const two = times_chosen(
      config_of("federate: {sampler: power_of_choice, sample_client_num: 1, seed: 3}"), 5500, schedule);
  double const one = 1.0 / 55 * 4 / 54 + 4.0 / 55 * 1 / 51;
  EXPECT_NEAR(two.at(1), 5500 * one, 5 * std::sqrt(5500 * one * (1 - one)));
  EXPECT_FALSE(two.contains(4)) << "it has the lowest loss of all";
}

TEST(Sampling, OnlyPowerOfChoiceRemembersLosses) {
  Schedule schedule;
  note_losses(config_of("federate: {sampler: group}"), losses_of({{1, 1}}), schedule);
  EXPECT_TRUE(schedule.sampler.losses.empty());
}

TEST(Placement, PutsEachClientOnceAndBalances) {
  std::vector<double> const costs{10, 1, 1, 1, 1, 1, 1, 1, 1, 2};
  auto const placed = place_clients(kTen, costs, 2, 0);
  std::multiset<int64_t> all;
  for (auto const& clients : placed) all.insert(clients.begin(), clients.end());
  EXPECT_EQ(all, std::multiset<int64_t>(kTen.begin(), kTen.end()));
  EXPECT_EQ(placed[0], std::vector<int64_t>{1});
}

TEST(Placement, LeavesAServingRankOut) {
  auto const placed = place_clients(kTen, std::vector<double>(10, 1.0), 3, 1);
  EXPECT_TRUE(placed[0].empty());
  EXPECT_EQ(placed[1].size(), 5U);
}

TEST(FedConfig, RejectsImpossibleValues) {
  EXPECT_ERROR(config_of("federate:\n  method: fedavgg"),
               "test.yaml:2: federate.method = 'fedavgg' (not a known method). Did you mean 'fedavg'?");
  EXPECT_ERROR(config_of("federate: {total_round_num: 0}"), "at least 1");
  EXPECT_ERROR(config_of("federate: {sample_client_rate: 1.5}"), "must be in [-1, 1]");
  EXPECT_ERROR(config_of("hpc: {reduce: fast}"), "must be one of auto, exact, native");
  EXPECT_ERROR(config_of("eval: {split: [val, train]}"), "must be one of val, test");
}

TEST(PlaceClients, StayOnTheRanksThatMayOpenTheirShards) {
  std::vector<std::vector<int>> const allowed{{1}, {1}, {1}, {0, 1}, {}};
  auto const placed = place_clients({1, 2, 3, 4, 5}, {5, 4, 3, 2, 1}, 3, 0, allowed);
  EXPECT_EQ(placed[0], (std::vector<int64_t>{4}));
  EXPECT_EQ(placed[1], (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(placed[2], (std::vector<int64_t>{5}));
  EXPECT_ERROR(place_clients({7}, {1}, 2, 1, {{0}}),
               "client 7 lies on rank 0 alone (hpc.server_trains: False");
}

/// The busiest rank against what no placement can beat: the mean load, or the largest client.
TEST(Placement, AThousandRanksAreBusyAlike) {
  constexpr int kRanks = 1000;
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> size(0, 1);
  for (int const clients_a_rank : {1, 2, 3, 10}) {
    std::vector<int64_t> clients(static_cast<size_t>(kRanks * clients_a_rank));
    std::iota(clients.begin(), clients.end(), 1);
    std::vector<double> costs;
    for ([[maybe_unused]] auto const client : clients) costs.push_back(std::ceil(1000 * size(random)));
    double busiest = 0;
    for (auto const& placed : place_clients(clients, costs, kRanks, 0)) {
      double load = 0;
      for (int64_t const client : placed) load += costs[static_cast<size_t>(client - 1)];
      busiest = std::max(busiest, load);
    }
    double const mean = std::accumulate(costs.begin(), costs.end(), 0.0) / kRanks;
    EXPECT_LE(busiest, 1.1 * std::max(mean, *std::ranges::max_element(costs))) << clients_a_rank;
  }
}

}  // namespace
}  // namespace fsllm
