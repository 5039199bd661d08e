// SPDX-License-Identifier: Apache-2.0
// Whole federated runs by the library, on every communicator that the ranks can form. Runs on 1, 2 and 4
// ranks.
#include "fsllm/fed/round.hpp"

#include <ATen/ops/equal.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/comm/collective.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/plan.hpp"
#include "fsllm/peft/peft.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

constexpr char const* kScaffold = "scaffold";
constexpr char const* kAsynchronous =
    "asyn: {use: True, response_times: [1, 2, 3, 7, 1], min_received_num: 1, staleness_toleration: -1, "
    "staleness_discount_factor: 0.5}\n";
constexpr char const* kAfterReceiving =
    "asyn: {use: True, response_times: [1, 2.5, 4], staleness_toleration: 1, broadcast_manner: "
    "after_receiving}\n";
constexpr int kClients = 5, kVocabulary = 96;

TokenSplit random_rows(Philox& random, int rows) {
  TokenSplit split;
  for (int row = 0; row < rows; ++row) {
    std::vector<int32_t> ids;
    std::vector<uint8_t> targets;
    for (uint64_t left = 5 + random.below(20); left > 0; --left) {
      ids.push_back(static_cast<int32_t>(random.below(kVocabulary)));
      targets.push_back(targets.size() > 1);
    }
    split.append(ids, targets, -1);
  }
  return split;
}

/// Client k has 2k rows to train on and one to be judged by.
void write_shards(std::filesystem::path const& dir) {
  ShardIndex index;
  for (int k = 1; k <= kClients; ++k) {
    Philox random(7, Purpose::test, static_cast<uint64_t>(k));
    ClientShard shard;
    shard.client_id = k;
    shard.vocab_size = kVocabulary;
    shard.train = random_rows(random, 2 * k);
    shard.val = random_rows(random, 1);
    index.clients.push_back(summarize(shard, write_shard(shard_path(dir, k), shard)));
  }
  write_shard_index(dir, index);
}

/// The result of a run: values by name, and the held-out loss of every round. On the communicator's rank 0.
struct Result {
  TensorMap values;
  std::vector<double> losses;
};

class Rounds : public testing::Test {
 protected:
  Rounds() { write_shards(dir_.path()); }

  /// No sample, as real time has it.
  static std::string all_clients(std::string const& more) { return more + "# all\n"; }

  Config config_of(int rounds, std::string const& more) const {
    auto config =
        Config::parse(fmt::format("federate: {{client_num: {}, sample_client_num: 3, total_round_num: {}}}\n"
                                  "train: {{local_update_steps: 2, optimizer: {{type: AdamW, lr: 0.01}}}}\n"
                                  "llm: {{adapter: {{use: True, args: [{{r: 4, lora_dropout: 0.1}}]}}}}\n"
                                  "{}",
                                  kClients, rounds, more == kScaffold ? "" : more),
                      "test.yaml");
    if (more == kScaffold) config.set("federate.method", "scaffold");
    if (more.ends_with("# all\n")) config.set("federate.sample_client_num", "-1");
    if (!sampler_.empty()) config.set("federate.sampler", sampler_);
    return config;
  }

  /// `rounds` rounds on `comm` in the folder `name`; a run that is there goes on.
  Result train(Communicator const& comm, std::string const& name, int rounds, std::string const& more = "") {
    auto config = config_of(rounds, more);
    auto fed = load_fed_config(config);
    if (drift_) fed.algorithm.start = drift_;
    auto const train = load_train_config(config);
    auto const model = load_model(test::source_file("tests/reference/llama"));
    auto const peft = make_peft(load_peft_config(config), *model, 1);
    ClientData data(sources_in(dir_.path()), "", kVocabulary, 64, false);
    auto const collective = make_host_collective(comm);
    // One folder a communicator, that of its rank 0.
    auto root = (dir_ / name).string();
    comm.broadcast(root, 0);
    RunDirectory const directory{root};
    bool const resume = comm.any(comm.rank() == 0 && directory.holds_run());
    std::unique_ptr<OutputFolder> output;
    if (comm.rank() == 0) {
      output = resume ? directory.resume() : directory.start(false, {});
      output->write("config.yaml", "");
    }
    Result result;
    Federation federation{
        .config = fed,
        .train_config = [&](int64_t) -> TrainConfig const& { return train; },
        .model = *model,
        .parameters = peft->state(),
        .data = data,
        .collective = *collective,
        .directory = directory,
        .output = output.get(),
        .save =
            [&](std::filesystem::path const& to, TensorMap const& values, TensorMap const&) {
              result.values = clone(values);
              std::ofstream(to / "adapter_config.json") << "{}";
            }};
    EXPECT_EQ(run_rounds(federation, resume).rounds, rounds);
    if (comm.rank() == 0) result.losses = losses_of(directory);
    return result;
  }

  static std::vector<double> losses_of(RunDirectory const& directory) {
    std::vector<double> losses;
    std::ifstream lines(directory.metrics());
    for (std::string line; std::getline(lines, line);) {
      auto const event = nlohmann::json::parse(line);
      if (event.at("event") != "end") losses.push_back(event.at("val").at("loss_per_token"));
    }
    return losses;
  }

  /// Every communicator of this test run: the world, its halves, and each rank alone.
  static std::vector<std::pair<std::string, Communicator>> communicators() {
    auto const world = Communicator::world();
    return {{"world", world},
            {"half", world.split(world.rank() % 2, world.rank())},
            {"alone", Communicator::self()}};
  }

  static void expect_same(Result const& a, Result const& b, std::string const& what) {
    EXPECT_EQ(a.losses, b.losses) << what;
    ASSERT_EQ(a.values.size(), b.values.size()) << what;
    for (auto const& [name, tensor] : a.values)
      EXPECT_TRUE(at::equal(tensor, b.values.at(name))) << what << " " << name;
  }

  /// w += Σ p_k (1 + τ_k)^-a Δ_k round by round, where Δ_k is what client k learns from the version that its
  /// turn began with.
  TensorMap replayed(std::string const& more, std::vector<RoundPlan> const& plans, double exponent) const {
    auto const rounds = static_cast<int>(plans.size());
    auto config = config_of(rounds, more);
    auto const fed = load_fed_config(config);
    auto const settings = load_train_config(config);
    auto const model = load_model(test::source_file("tests/reference/llama"));
    auto const peft = make_peft(load_peft_config(config), *model, 1);
    auto live = peft->state();
    ClientData data(sources_in(dir_.path()), "", kVocabulary, 64, false);
    std::vector<TensorMap> versions{clone(live)};
    for (auto const& plan : plans) {
      auto const aggregation = make_exact_aggregation({live, {}}, 48);
      for (auto const& task : tasks(plan)) {
        auto const& start = versions.at(static_cast<size_t>(task.version));
        copy_values(live, start);
        train_client(*model, live, data.shard(task.client)->train, settings,
                     {fed.seed, task.client, task.version, rounds});
        auto const staleness = static_cast<double>(plan.round - task.version);
        auto update = subtract(live, start);
        for (auto& [name, tensor] : update) tensor.mul_(std::pow(1 + staleness, -exponent));
        aggregation->add({update, {}}, task);
      }
      auto const mean = aggregation->reduce(*make_host_collective(Communicator::self())).mean;
      auto& next = versions.emplace_back(clone(versions.back()));
      for (auto& [name, tensor] : next) tensor.add_(mean.at(name));
    }
    return versions.back();
  }

  static void expect_equal(TensorMap const& a, TensorMap const& b) {
    for (auto const& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
  }

  std::string sampler_;
  std::function<TensorMap(ServerState const&, TensorMap const&)> drift_;
  test::TempDir dir_;
};

TEST_F(Rounds, HaveTheSameBitsOnAnyNumberOfRanks) {
  for (auto const* more :
       {"", "fedopt: {use: True, optimizer: {type: Adam, lr: 0.1}}\n", "hpc: {server_trains: False}\n",
        "fedprox: {use: True, mu: 0.5}\n", kScaffold, kAsynchronous, kAfterReceiving}) {
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
  for (auto const* more : {"", kScaffold, kAsynchronous, kAfterReceiving}) {
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
}  // namespace fsllm
