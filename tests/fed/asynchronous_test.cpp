// SPDX-License-Identifier: Apache-2.0
// Asynchronous aggregation in virtual time, on quadratic losses a/2 (w - b)² in float64, against a queue of
// events. Runs on 1, 2 and 4 ranks.
#include "fsllm/fed/asynchronous.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <cmath>
#include <set>

#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/plan.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

struct Client {
  double a, b, rows;
};
constexpr Client kClients[] = {{1, 3, 10}, {0.5, -1, 30}, {2, 0.25, 5}, {1.5, 7, 11}, {0.25, 2, 19}};
constexpr int kRounds = 14, kSteps = 4;
constexpr double kLr = 0.1;

double descend(double w, Client const& client) {
  return client.b + std::pow(1 - kLr * client.a, kSteps) * (w - client.b);
}

FedConfig config_of(std::string const& yaml) {
  auto config = Config::parse(yaml, "test.yaml");
  auto fed = load_fed_config(config);
  config.finish();
  return fed;
}

struct Case {
  std::vector<double> times;
  int64_t awaited = 1;
  double exponent = 0;
  int64_t toleration = -1;
  bool after_receiving = false;
  double server_lr = 1;

  std::string yaml() const {
    return fmt::format(
        "asyn: {{use: True, response_times: [{}], min_received_num: {}, staleness_discount_factor: {}, "
        "staleness_toleration: {}, broadcast_manner: {}}}\n{}",
        fmt::join(times, ", "), awaited, exponent, toleration,
        after_receiving ? "after_receiving" : "after_aggregating",
        server_lr == 1 ? std::string()
                       : fmt::format("fedopt: {{use: True, optimizer: {{type: SGD, lr: {}}}}}\n", server_lr));
  }
};

/// The global w after each aggregation, and what happened on the way.
struct Path {
  std::vector<double> w{0}, seconds;
  int64_t dropped = 0;
  std::set<int64_t> staleness;
  bool twice = false;  ///< an aggregation took two updates of a client
};

/// The rule, event by event: (end, client, version) of each turn at work.
Path reference(Case const& c) {
  std::set<std::tuple<double, int64_t, int64_t>> queue;
  std::vector<std::pair<int64_t, int64_t>> buffer;
  std::set<int64_t> waiting{0, 1, 2, 3, 4};
  Path path;
  for (double now = 0; path.w.size() <= kRounds;) {
    auto const newest = std::ssize(path.w) - 1;
    auto const begin = [&](int64_t k) {
      queue.emplace(now + c.times[static_cast<size_t>(k) % c.times.size()], k, newest);
    };
    if (buffer.empty()) {
      for (auto const k : waiting) begin(k);
      waiting.clear();
    }
    auto const [end, k, version] = *queue.begin();
    queue.erase(queue.begin());
    now = end;
    if (c.toleration >= 0 && newest - version > c.toleration) {
      ++path.dropped;
      begin(k);
      continue;
    }
    buffer.emplace_back(k, version);
    c.after_receiving&& version < newest ? begin(k) : void(waiting.insert(k));
    if (std::ssize(buffer) < c.awaited) continue;
    double rows = 0, next = path.w.back();
    std::set<int64_t> senders;
    for (auto const& [client, from] : buffer) rows += kClients[client].rows;
    for (auto const& [client, from] : buffer) {
      auto const tau = newest - from;
      double const w = path.w[static_cast<size_t>(from)];
      next += c.server_lr * kClients[client].rows / rows *
              std::pow(1.0 + static_cast<double>(tau), -c.exponent) * (descend(w, kClients[client]) - w);
      path.staleness.insert(tau);
      path.twice = !senders.insert(client).second || path.twice;
    }
    path.w.push_back(next);
    path.seconds.push_back(now);
    buffer.clear();
  }
  return path;
}

std::vector<TrainingClient> clients_with(std::vector<double> const& times) {
  std::vector<TrainingClient> clients;
  for (size_t k = 0; k < std::size(kClients); ++k)
    clients.push_back({static_cast<int64_t>(k) + 1, kClients[k].rows, times[k % times.size()]});
  return clients;
}

/// The same by plans, messages and sums; client k belongs to rank k modulo the number of ranks.
Path train(std::string const& yaml, std::vector<double> const& times, Communicator const& comm) {
  auto const fed = config_of(yaml);
  auto const collective = make_host_collective(comm);
  ServerState server{{{"w", at::zeros({2}, at::kDouble)}}, {}};
  std::map<int64_t, ServerState> earlier;
  auto const server_step = fed.algorithm.server_step(server.weights);
  Schedule schedule;
  Path path;
  for (int round = 0; round < kRounds; ++round) {
    auto const plan = plan_round(fed, clients_with(times), round, schedule);
    schedule = parse_schedule(to_text(schedule));
    auto const aggregation = make_exact_aggregation({server.weights, {}}, 48);
    for (auto const& task : tasks(plan)) {
      auto const& from = task.version == round ? server : earlier.at(task.version);
      path.staleness.insert(round - task.version);
      if (task.client % comm.size() != comm.rank()) continue;
      auto const start = clone(from.weights);
      auto parameters = clone(start);
      auto& w = parameters.at("w");
      w.copy_(descend(w[0].item<double>(), kClients[task.client - 1]) * at::ones_like(w));
      TensorMap state;
      ClientTurn turn{plan, task, from, start, parameters, state, subtract(parameters, start), {}};
      aggregation->add(message_of(fed.algorithm, turn), task);
    }
    auto const used = versions_in_use(fed.asyn, schedule.clock, round + 1);
    std::erase_if(earlier, [&](auto const& each) { return !std::ranges::binary_search(used, each.first); });
    if (std::ranges::binary_search(used, int64_t{round})) earlier[round] = {clone(server.weights), {}};
    auto const arrived = aggregation->reduce(*collective);
    if (comm.rank() == 0) server_step->step(server, arrived, plan);
    collective->broadcast(server.weights, 0);
    path.w.push_back(server.weights.at("w")[1].item<double>());
    path.seconds.push_back(plan.arrivals->virtual_seconds.value());
    path.dropped += plan.arrivals->dropped;
  }
  return path;
}

TEST(Asynchronous, FollowsTheRuleEventByEvent) {
  std::vector<double> const equal{1}, different{1, 2.5, 4, 9, 0.75}, ties{1, 2, 3, 6, 1};
  std::set<int64_t> staleness;
  int64_t dropped = 0;
  bool twice = false;
  std::vector<Case> cases{{ties, 3, 0.5, -1, false, 0.5}, {different, 4, 1, 1, true, 0.5}};
  for (auto const& times : {equal, different, ties})
    for (int64_t const awaited : {1, 2, 3, 5})
      for (double const exponent : {0.0, 0.5, 1.0})
        for (int64_t const toleration : {-1, 0, 1, 3})
          for (bool const after_receiving : {false, true})
            cases.push_back({times, awaited, exponent, toleration, after_receiving, 1});
  for (auto const& c : cases) {
    auto const expected = reference(c);
    auto const alone = train(c.yaml(), c.times, Communicator::self());
    for (size_t i = 0; i < expected.w.size(); ++i)
      ASSERT_NEAR(alone.w[i], expected.w[i], 1e-12) << c.yaml() << i;
    EXPECT_EQ(alone.seconds, expected.seconds) << c.yaml();
    EXPECT_EQ(alone.dropped, expected.dropped) << c.yaml();
    EXPECT_EQ(alone.staleness, expected.staleness) << c.yaml();
    EXPECT_EQ(train(c.yaml(), c.times, Communicator::world()).w, alone.w) << c.yaml();
    staleness.insert(expected.staleness.begin(), expected.staleness.end());
    dropped += expected.dropped;
    twice = twice || expected.twice;
  }
  for (int64_t const tau : {0, 1, 2, 3}) EXPECT_TRUE(staleness.contains(tau)) << tau;
  EXPECT_GT(dropped, 0);
  EXPECT_TRUE(twice);
}

TEST(Asynchronous, IsFedAvgWhereAllAreAwaited) {
  auto const asynchronous = train(Case{{1}, 5, 0}.yaml(), {1}, Communicator::world()).w;
  // Rounds: every plan is that of FedAvg, and nothing is discounted.
  auto const fed = config_of("");
  Schedule schedule, clock;
  auto const with = config_of(Case{{1}, 5, 0}.yaml());
  for (int round = 0; round < 3; ++round) {
    auto const rounds = tasks(plan_round(fed, clients_with({1}), round, schedule));
    auto const turns = tasks(plan_round(with, clients_with({1}), round, clock));
    ASSERT_EQ(turns.size(), rounds.size());
    for (size_t i = 0; i < turns.size(); ++i) {
      EXPECT_EQ(turns[i].client, rounds[i].client);
      EXPECT_EQ(turns[i].version, rounds[i].version);
      EXPECT_EQ(turns[i].weight, rounds[i].weight);
    }
  }
  EXPECT_NE(asynchronous.back(), 0);
}

/// Clients (and versions) of each aggregation, its time, and what was dropped.
std::vector<std::string> aggregations(std::string const& asyn, std::vector<double> const& times, int rounds,
                                      std::string const& more = "") {
  auto const fed = config_of("asyn: {use: True, staleness_toleration: -1, " + asyn + "}\n" + more);
  Schedule schedule;
  std::vector<std::string> lines;
  for (int round = 0; round < rounds; ++round) {
    auto const plan = plan_round(fed, clients_with(times), round, schedule);
    std::string line;
    for (auto const& task : tasks(plan)) line += fmt::format("{}v{} ", task.client, task.version);
    lines.push_back(line + fmt::format("at {:g}, {} dropped", plan.arrivals->virtual_seconds.value(),
                                       plan.arrivals->dropped));
  }
  return lines;
}

using Lines = std::vector<std::string>;

TEST(Asynchronous, AggregatesWhenTimeIsUp) {
  std::vector<double> const times{1, 2.5, 4, 9, 50};
  EXPECT_EQ(aggregations("aggregator: time_up, time_budget: 3, min_received_num: 2", times, 4),
            (Lines{"1v0 2v0 at 3, 0 dropped", "1v1 2v1 3v0 at 6, 0 dropped", "1v2 2v2 4v0 at 9, 0 dropped",
                   "1v3 2v3 3v2 at 12, 0 dropped"}));
  // Too few have come after one budget: the server waits for as many more as it takes.
  EXPECT_EQ(aggregations("aggregator: time_up, time_budget: 0.4, min_received_num: 3", times, 2),
            (Lines{"1v0 2v0 3v0 at 4, 0 dropped", "1v1 2v1 3v1 at 8, 0 dropped"}));
  EXPECT_ERROR(config_of("asyn: {use: True, aggregator: time_up}"), "asyn.time_budget is 0");
}

TEST(Asynchronous, OverselectionDropsWhoIsLate) {
  EXPECT_EQ(aggregations("overselection: True, min_received_num: 2", {1, 2.5, 4, 9, 50}, 2),
            (Lines{"1v0 2v0 at 2.5, 3 dropped", "1v1 2v1 at 5, 3 dropped"}));
}

TEST(Asynchronous, AShareOfTheClientsAtWorkIsAwaited) {
  EXPECT_EQ(aggregations("min_received_rate: 0.7", {1, 2, 3, 4, 5}, 1),
            (Lines{"1v0 2v0 3v0 at 3, 0 dropped"}));
  EXPECT_EQ(aggregations("min_received_rate: 0.1", {1, 2, 3, 4, 5}, 1), (Lines{"1v0 at 1, 0 dropped"}));
  EXPECT_ERROR(training_clients(config_of("{asyn: {use: True, min_received_num: 3}, federate: "
                                          "{sample_client_num: 2}}"),
                                {1, 2, 3, 4, 5}),
               "asyn.min_received_num = 3 (only 2 clients are at work at a time)");
}

/// Two places for five clients: never more at work, each from the newest weights when it began.
TEST(Asynchronous, ASampleIsAtWorkAtATime) {
  for (std::string const manner : {"after_aggregating", "after_receiving"}) {
    auto const fed = config_of(
        "{asyn: {use: True, min_received_num: 1, staleness_toleration: -1, "
        "broadcast_manner: " +
        manner + "}, federate: {sample_client_num: 2, sampler: group}}");
    Schedule schedule;
    std::map<int64_t, int> times;
    for (int round = 0; round < 40; ++round) {
      auto const plan = plan_round(fed, clients_with({1, 2, 3, 4, 5}), round, schedule);
      for (auto const& task : tasks(plan)) ++times[task.client];
      std::set<int64_t> busy;
      for (auto const& turn : schedule.clock.at_work) busy.insert(turn.client);
      EXPECT_EQ(busy.size(), schedule.clock.at_work.size());
      EXPECT_EQ(busy.size(), manner == "after_receiving" ? 2U : 1U);
    }
    for (int64_t k = 1; k <= 5; ++k) EXPECT_NEAR(times[k], 8, 2) << manner << k;
  }
}

TEST(Asynchronous, WhatIsNotDefinedIsRefused) {
  auto const refused = [](std::string const& more, std::string const& message) {
    EXPECT_ERROR(config_of("{asyn: {use: True}, " + more + "}"), message);
  };
  refused("federate: {method: local}", "nothing is sent");
  refused("federate: {method: global}", "there is one client");
  refused("federate: {method: scaffold}", "federate.method = scaffold (what clients keep from turn to turn");
  refused("federate: {method: ditto}", "federate.method = ditto (what clients keep from turn to turn");
  refused("federate: {keep_optimizer: True}", "federate.keep_optimizer (a turn that is dropped");
  refused("personalization: {local_param: [lora_B]}", "personalization.local_param (what a client learns");
  refused("federate: {lora_aggregation: rolora}", "federate.lora_aggregation = rolora (factors that began");
  refused("federate: {lora_aggregation: fedsvd}", "federate.lora_aggregation = fedsvd (factors that began");
  EXPECT_ERROR(config_of("{asyn: {use: True, broadcast_manner: after_receiving}, aggregator: {robust_rule: "
                         "median}}"),
               "a client may send twice");
  EXPECT_ERROR(config_of("asyn: {use: True, broadcast_manner: after_receiving, overselection: True}"),
               "lets all begin together");
  EXPECT_ERROR(config_of("{asyn: {use: True, clock: real}, federate: {sample_client_num: 2}}"),
               "as many are at work as ranks train");
  EXPECT_ERROR(config_of("asyn: {use: True, clock: real, overselection: True}"),
               "a rank cannot leave a client");
  EXPECT_ERROR(check_ranks(config_of("asyn: {use: True, clock: real}").asyn, 1), "nobody would train");
  EXPECT_ERROR(config_of("asyn: {response_times: [1, 0]}"), "must be more than 0");
  config_of(
      "{asyn: {use: True}, fedprox: {use: True, mu: 0.1}, federate: {lora_aggregation: ffa}, aggregator: "
      "{robust_rule: median}}");
}

}  // namespace
}  // namespace fsllm
