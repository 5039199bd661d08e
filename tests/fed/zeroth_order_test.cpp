// SPDX-License-Identifier: Apache-2.0
// Clients that train by MeZO on quadratic losses in float64: the server's replay against the mean of their
// updates. Runs on 1, 2 and 4 ranks.
#include <ATen/ATen.h>

#include <cmath>

#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/config.hpp"
#include "fsllm/train/trainer.hpp"
#include "lora_rounds.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

constexpr uint64_t kSeed = 11;
constexpr int64_t kSteps[kClients] = {3, 1, 4, 2, 4};

FedAlgorithm mezo(std::string const& yaml, LoraFactors const& lora = {}) {
  auto config = Config::parse(yaml, "test.yaml");
  if (!config.has("train.optimizer.type") && !config.has("trainer.type"))
    config.set("train.optimizer.type", "MeZO");
  config.set("seed", std::to_string(kSeed));
  load_train_config(config);
  auto const fed = load_fed_config(config);
  auto algorithm = fed.algorithm;
  bind_factors(algorithm, lora);
  return algorithm;
}

TensorMap first() {
  return {{"a", at::tensor({0.5, -1.0, 2.0}, at::kDouble)},
          {"b", at::tensor({1.0, 3.0}, at::kDouble).view({1, 2})}};
}

/// T_k steps from `parameters` on (k + 1) / 4 ‖w - k‖²; the moves.
std::vector<ZerothOrderMove> train_client(int64_t k, int64_t round, TensorMap const& parameters) {
  std::vector<ZerothOrderMove> moves;
  for (int64_t step = 0; step < kSteps[k]; ++step) {
    PerturbationKey const key{kSeed, k + 1, round, step};
    auto const [plus, minus] = losses_around(parameters, key, 1e-3, [&] {
      double sum = 0;
      for (auto const& [name, w] : parameters)
        sum += static_cast<double>(k + 1) / 4 * w.sub(static_cast<double>(k)).square().sum().item<double>();
      return sum;
    });
    moves.push_back({(plus - minus) / 2e-3, 0.02 / static_cast<double>(step + 1)});
    for (auto const& [name, w] : parameters)
      add_normal(w, -moves.back().rate * moves.back().slope, name, key);
  }
  return moves;
}

struct Path {
  std::vector<TensorMap> weights;
  TensorMap expected;  ///< of the first round: Σ p_k w_k
  int64_t sent = 0;    ///< values a round
};

Path train(FedAlgorithm const& algorithm, Communicator const& comm) {
  auto const collective = make_host_collective(comm);
  ServerState server{first(), {}, {}, {}};
  auto const step = algorithm.server_step(server.weights);
  Path path;
  for (int64_t round = 0; round < kRounds; ++round) {
    RoundPlan plan{round, kClients, {}, {}};
    for (int64_t k = 0; k < kClients; ++k) plan.cohorts.push_back({{k + 1, round, weight_of(k), kSteps[k]}});
    Message const layout{{}, algorithm.planned_sums(plan), {}};
    path.sent = num_parameters(layout.sum);
    auto const aggregation = make_exact_aggregation(layout, 48);
    TensorMap mean = first();
    for (auto& [name, tensor] : mean) tensor.zero_();
    for (int64_t k = 0; k < kClients; ++k) {
      auto const start = clone(server.weights);
      auto parameters = clone(start);
      TensorMap state;
      ClientTurn turn{
          plan, plan.cohorts[static_cast<size_t>(k)].front(), server, start, parameters, state, {}, {}};
      turn.moves = train_client(k, round, parameters);
      turn.update = subtract(parameters, start);
      for (auto& [name, tensor] : mean) tensor.add_(parameters.at(name), weight_of(k));
      if (k % comm.size() != comm.rank()) continue;
      auto const message = message_of(algorithm, turn);
      EXPECT_TRUE(message.mean.empty());
      aggregation->add(message, turn.task);
    }
    if (round == 0) path.expected = mean;
    auto const arrived = aggregation->reduce(*collective);
    if (comm.rank() == 0) step->step(server, arrived, plan);
    collective->broadcast(server.weights, 0);
    path.weights.push_back(clone(server.weights));
  }
  return path;
}

/// FedAvg of the clients' own runs, of unequal weights and steps, from two scalars a step; the same bits on
/// any number of ranks; and what a server optimiser makes of it.
TEST(ZerothOrderRounds, TheReplayIsTheMeanOfTheClientsUpdates) {
  auto const alone = train(mezo(""), Communicator::self());
  EXPECT_EQ(alone.sent, 2 * kClients * 4);
  for (auto const& [name, tensor] : alone.weights.front()) {
    EXPECT_TRUE(tensors_near(tensor, alone.expected.at(name), 1e-12)) << name;
    EXPECT_GT(tensor.sub(first().at(name)).abs().max().item<double>(), 1e-3);
  }
  auto const halved =
      train(mezo("fedopt: {use: True, optimizer: {type: SGD, lr: 0.5}}"), Communicator::self());
  for (auto const& [name, tensor] : halved.weights.front())
    EXPECT_TRUE(tensors_near(tensor, alone.expected.at(name).add(first().at(name)).div(2), 1e-12)) << name;
  auto const together = train(mezo(""), Communicator::world());
  for (size_t round = 0; round < alone.weights.size(); ++round)
    for (auto const& [name, tensor] : alone.weights[round])
      EXPECT_TRUE(tensor.equal(together.weights[round].at(name))) << name << round;
}

TEST(ZerothOrderRounds, RefuseWhatNeedsGradientsOrUpdates) {
  std::map<std::string, std::string> const bad{
      {"fedprox: {use: True}", "changes gradients"},
      {"federate: {method: scaffold}", "changes gradients"},
      {"federate: {method: ditto}", "train in parts"},
      {"{federate: {method: pfedme}, personalization: {regular_weight: 1}}", "changes gradients"},
      {"{federate: {method: fedrep}, personalization: {local_param: [lora_B]}}", "train in parts"},
      {"personalization: {local_param: [lora_B]}", "what the server replays"},
      {"federate: {lora_aggregation: ffa}", "moves all that is trained"},
      {"federate: {lora_aggregation: fedsb}", "moves all that is trained"},
      {"federate: {lora_aggregation: flora}", "they send scalars"},
      {"federate: {lora_aggregation: frlora}", "they send scalars"},
      {"federate: {keep_optimizer: True}", "keeps nothing"},
      {"hpc: {clients_per_pass: 2}", "a direction of its own"},
      {"asyn: {use: True}", "that began together"},
      {"aggregator: {robust_rule: median}", "they send scalars"},
      {"aggregator: {robust_rule: normbounding, BFT_args: {normbounding_norm_bound: 1}}",
       "they send scalars"}};
  for (auto const& [yaml, message] : bad) EXPECT_ERROR(mezo(yaml), message);
  EXPECT_ERROR(mezo("{trainer: {type: mezotrainer}, asyn: {use: True}}"), "that began together");
  EXPECT_FALSE(mezo("federate: {method: local}").planned_sums);
  EXPECT_TRUE(mezo("federate: {method: global}").planned_sums);
  auto const with_factors = mezo("", factors_of_run(false));
  EXPECT_FALSE(with_factors.summed) << "no sketch of an error travels with scalars";
}

}  // namespace
}  // namespace fsllm::test
