// SPDX-License-Identifier: Apache-2.0
// Federated runs by the library on a small model, and what they are compared with.
#pragma once
#include <ATen/ops/equal.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/comm/collective.hpp"
#include "fsllm/core/rng.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/mixture.hpp"
#include "fsllm/fed/plan.hpp"
#include "fsllm/fed/round.hpp"
#include "fsllm/peft/peft.hpp"
#include "support.hpp"

namespace fsllm::test {

constexpr char const* kScaffold = "scaffold";
constexpr char const* kFedEm = "model: {model_num_per_trainer: 2}\n";
constexpr char const* kAsynchronous =
    "asyn: {use: True, response_times: [1, 2, 3, 7, 1], min_received_num: 1, staleness_toleration: -1, "
    "staleness_discount_factor: 0.5}\n";
constexpr char const* kAfterReceiving =
    "asyn: {use: True, response_times: [1, 2.5, 4], staleness_toleration: 1, broadcast_manner: "
    "after_receiving}\n";
constexpr int kClients = 5, kVocabulary = 96;

inline TokenSplit random_rows(Philox& random, int rows) {
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
inline void write_shards(std::filesystem::path const& dir) {
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

/// The model of these runs with its adapter, and all shards of a folder.
struct Parts {
  explicit Parts(Config& config, std::filesystem::path const& shards)
      : fed(load_fed_config(config)),
        train(load_train_config(config)),
        model(load_model(source_file("tests/reference/llama"))),
        peft(make_peft(load_peft_config(config), *model, 1)),
        live(peft->state()),
        data(sources_in(shards), "", kVocabulary, 64, false) {}
  FedConfig fed;
  TrainConfig train;
  std::unique_ptr<CausalLM> model;
  std::unique_ptr<Peft> peft;
  TensorMap live;
  ClientData data;
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
    if (more.starts_with(kFedEm)) {
      config.set("federate.method", "fedem");
      config.set("train.optimizer", "{type: SGD, lr: 0.5}");
    }
    if (more.ends_with("# all\n")) config.set("federate.sample_client_num", "-1");
    if (!sampler_.empty()) config.set("federate.sampler", sampler_);
    return config;
  }

  /// `rounds` rounds on `comm` in the folder `name`; a run that is there goes on.
  Result train(Communicator const& comm, std::string const& name, int rounds, std::string const& more = "") {
    auto config = config_of(rounds, more);
    Parts parts(config, dir_.path());
    auto& fed = parts.fed;
    if (drift_) fed.algorithm.start = drift_;
    if (fed.algorithm.components > 1)
      bind_components(fed.algorithm,
                      {.seed = 10, .fresh = [&](uint64_t seed) { return fresh(*parts.peft, seed); }});
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
    Federation federation{.config = fed,
                          .train_config = [&](int64_t) -> TrainConfig const& { return parts.train; },
                          .model = *parts.model,
                          .parameters = parts.live,
                          .data = parts.data,
                          .collective = *collective,
                          .directory = directory,
                          .output = output.get(),
                          .save =
                              [&](std::filesystem::path const& to, TensorMap const& values, TensorMap const&,
                                  ResultFacts const&) {
                                result.values = clone(values);
                                std::ofstream(to / "adapter_config.json") << "{}";
                              }};
    EXPECT_EQ(run_rounds(federation, resume).rounds, rounds);
    if (comm.rank() == 0) result.losses = losses_of(directory);
    return result;
  }

  /// Other first values than those that are live, and stay.
  static TensorMap fresh(Peft& peft, uint64_t seed) {
    auto live = peft.state();
    auto const before = clone(live);
    peft.initialize(seed);
    auto const values = clone(live);
    copy_values(live, before);
    return values;
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
    Parts parts(config, dir_.path());
    auto& [fed, settings, model, peft, live, data] = parts;
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
  TempDir dir_;
};

}  // namespace fsllm::test
