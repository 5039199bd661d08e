// SPDX-License-Identifier: Apache-2.0
// Whole federated runs by the library, on every communicator that the ranks can form. Runs on 1, 2 and 4
// ranks.
#include "rounds.hpp"

namespace fsllm::test {
namespace {

TEST_F(Rounds, HaveTheSameBitsOnAnyNumberOfRanks) {
  for (auto const* more :
       {"", "fedopt: {use: True, optimizer: {type: Adam, lr: 0.1}}\n", "hpc: {server_trains: False}\n",
        "fedprox: {use: True, mu: 0.5}\n", kScaffold, kFedEm, kAsynchronous, kAfterReceiving}) {
    auto const alone = train(Communicator::self(), "first", 3, more);
    EXPECT_EQ(alone.losses.size(), 4U);
    // Before AdamW's moments SCAFFOLD's correction is a heuristic, which takes longer here.
    if (more != kScaffold) {
      EXPECT_LT(alone.losses.back(), alone.losses.front()) << more;
    }
    for (auto const& [name, comm] : communicators()) {
      auto const result = train(comm, name, 3, more);
      if (comm.rank() == 0) expect_same(result, alone, name + " " + more);
      std::filesystem::remove_all(dir_ / name);
    }
    std::filesystem::remove_all(dir_ / "first");
  }
}

TEST_F(Rounds, GoOnWithTheSameBitsOnOtherRanks) {
  for (auto const* more : {"", kScaffold, kFedEm, kAsynchronous, kAfterReceiving}) {
    sampler_ = *more == '\0' ? "power_of_choice" : more == kAfterReceiving ? "group" : "";
    auto const whole = train(Communicator::self(), "first", 4, more);
    for (auto const& [name, comm] : communicators()) {
      // Each rank's copy of the first half, by itself; the communicator goes on with that of its rank 0.
      train(Communicator::self(), name, 2, more);
      auto const result = train(comm, name, 4, more);
      if (comm.rank() == 0) expect_same(result, whole, name + more);
      std::filesystem::remove_all(dir_ / name);
    }
    std::filesystem::remove_all(dir_ / "first");
  }
}

TEST_F(Rounds, AsynchronousTurnsBeginWithTheirVersion) {
  constexpr int kTurns = 7;
  auto const run = train(Communicator::world(), "asynchronous", kTurns, kAsynchronous);
  if (Communicator::world().rank() != 0) return;
  auto config = config_of(kTurns, kAsynchronous);
  auto const fed = load_fed_config(config);
  std::vector<TrainingClient> clients;
  for (int k = 1; k <= kClients; ++k) clients.push_back({k, 2.0 * k, fed.asyn.response_times.at(k - 1)});
  std::vector<RoundPlan> plans;
  Schedule schedule;
  int64_t stalest = 0;
  for (int round = 0; round < kTurns; ++round) {
    plans.push_back(plan_round(fed, clients, round, schedule));
    stalest = std::max(stalest, plans.back().arrivals->staleness_max);
  }
  EXPECT_GE(stalest, 2);
  expect_equal(run.values, replayed(kAsynchronous, plans, 0.5));
}

/// Where all clients are awaited each begins every turn with the newest version: FedAvg's bits, whoever
/// trained what, and after a resume.
TEST_F(Rounds, InRealTimeAreFedAvgWhereAllAreAwaited) {
  auto const world = Communicator::world();
  if (world.size() == 1) {
    EXPECT_ERROR(train(world, "alone", 1, all_clients("asyn: {use: True, clock: real}\n")),
                 "nobody would train");
    return;
  }
  auto const asyn =
      all_clients("asyn: {use: True, clock: real, min_received_num: 5, staleness_discount_factor: 0}\n");
  auto const timed = all_clients(
      "asyn: {use: True, clock: real, aggregator: time_up, time_budget: 0.01, min_received_num: 5}\n");
  auto const fedavg = train(Communicator::self(), "fedavg", 4, all_clients(""));
  auto const by_time = train(world, "timed", 4, timed);
  auto const real = train(world, "real", 4, asyn);
  train(world, "resumed", 2, asyn);
  auto const resumed = train(world, "resumed", 4, asyn);
  if (world.rank() != 0) return;
  expect_same(real, fedavg, "real time");
  expect_same(by_time, fedavg, "real time, aggregations when time is up");
  expect_same(resumed, fedavg, "real time, resumed");
}

/// One rank that trains, M = 1: the clients one after another, each from where the one before has left the
/// model, and round again.
TEST_F(Rounds, InRealTimeOneWorkerTrainsOneClientAfterAnother) {
  auto const world = Communicator::world();
  if (world.size() == 1) GTEST_SKIP() << "needs two ranks";
  auto const pair = world.split(world.rank() / 2, world.rank());
  constexpr int kTurns = 7;
  auto const asyn = all_clients("asyn: {use: True, clock: real, min_received_num: 1}\n");
  auto const run = train(pair, "real" + std::to_string(world.rank() / 2), kTurns, asyn);
  if (pair.rank() != 0) return;
  std::vector<RoundPlan> plans;
  for (int round = 0; round < kTurns; ++round)
    plans.push_back({round, kClients, {{{round % kClients + 1, round, 1}}}, {}});
  expect_equal(run.values, replayed(asyn, plans, 0));
}

/// Many ranks that train, M = 2: aggregations and evaluations cut turns, which go on afterwards. Whoever came
/// when, the result is that of the order which the log tells.
TEST_F(Rounds, InRealTimeTurnsAreThoseThatTheLogTells) {
  auto const world = Communicator::world();
  if (world.size() < 3) GTEST_SKIP() << "needs two ranks that train";
  for (std::string const manner : {"after_aggregating", "after_receiving"}) {
    constexpr int kTurns = 20;
    auto const asyn = all_clients(
        "early_stop: {patience: 0}\nasyn: {use: True, clock: real, staleness_discount_factor: 0.5, "
        "staleness_toleration: 3, broadcast_manner: " +
        manner + "}\n");
    auto const run = train(world, manner, kTurns, asyn);
    if (world.rank() != 0) continue;
    std::vector<RoundPlan> plans(kTurns);
    std::ifstream lines(dir_ / manner / "metrics_clients.jsonl");
    for (std::string line; std::getline(lines, line);) {
      auto const json = nlohmann::json::parse(line);
      if (!json.contains("train")) continue;
      auto const client = json.at("client").get<int64_t>(), round = json.at("round").get<int64_t>() - 1;
      auto const staleness = json.at("train").at("staleness").get<int64_t>();
      EXPECT_LE(staleness, 3);
      auto& plan = plans.at(static_cast<size_t>(round));
      plan.round = round;
      plan.cohorts.push_back({{client, round - staleness, static_cast<double>(client)}});
    }
    for (auto& plan : plans) {
      EXPECT_GE(plan.cohorts.size(), 2U);
      double rows = 0;
      for (auto const& task : tasks(plan)) rows += task.weight;
      for (auto& cohort : plan.cohorts) cohort[0].weight /= rows;
    }
    expect_equal(run.values, replayed(asyn, plans, 0.5));
  }
}

TEST_F(Rounds, ARankWithAnotherStateIsNamed) {
  auto const world = Communicator::world();
  if (world.size() == 1) GTEST_SKIP() << "needs two ranks";
  drift_ = [&](ServerState const& server, TensorMap const&) {
    // Every rank but one leaves it as it is.
    if (world.rank() == 1) server.weights.begin()->second.view(-1)[0].add_(1);
    return server.weights;
  };
  EXPECT_ERROR(train(world, "drift", 1), "round 1: the global state of rank 1 is not that of rank 0");
}

/// One round, from the same start: the clients' updates are the same bits, only their sum is not.
TEST_F(Rounds, NativeSumsDifferFromExactOnesByRounding) {
  auto const world = Communicator::world();
  auto const exact = train(world, "exact", 1, "hpc: {reduce: exact}\n");
  auto const native = train(world, "native", 1, "hpc: {reduce: native}\n");
  if (world.rank() != 0) return;
  double difference = 0;
  for (auto const& [name, tensor] : exact.values)
    if (name.find("lora_B") != std::string::npos)  // it starts at zero, and so is the mean update itself
      difference = std::max(difference, native.values.at(name).sub(tensor).abs().max().item<double>());
  // No update is larger than AdamW's two steps (1.002 lr each at most). For the roundings see
  // aggregate_test.cpp: two of each of three terms, two sums and one a further rank, two of the quotient; one
  // of the exact mean.
  double const largest = 2 * 1.002 * 0.01, roundings = 2 + 2 + (world.size() - 1) + 2 + 1;
  RecordProperty("difference", fmt::format("{:g}", difference / largest));
  EXPECT_LE(difference, roundings * 0x1p-24 * largest);
  EXPECT_GT(difference, 0) << "were both sums exact?";
}

}  // namespace
}  // namespace fsllm::test
