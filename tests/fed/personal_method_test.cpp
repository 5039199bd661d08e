// SPDX-License-Identifier: Apache-2.0
// Methods whose clients keep something of their own, on losses a/2 (u + v - b)², in float64: gradient descent
// on u, on v or on both has a closed form. Runs on 1, 2 and 4 ranks.
#include <ATen/ATen.h>

#include <cmath>

#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/config.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

struct Client {
  double a, b, rows;
};
constexpr Client kClients[] = {{1, 3, 10}, {0.5, -1, 30}, {2, 0.25, 5}, {1.5, 7, 11}};
constexpr int kRounds = 4, kSteps = 3;
constexpr double kLr = 0.1, kRows = 56;

/// z after `steps` steps on curvature `a` with minimum `b`.
double descend(double z, double a, double b, double lr, int64_t steps) {
  return b + std::pow(1 - lr * a, steps) * (z - b);
}

/// The trainings of one client's turn, as the program makes them.
void train_parts(FedAlgorithm const& algorithm, ClientTurn& turn, TensorMap& parameters) {
  auto const& client = kClients[turn.task.client - 1];
  std::vector<GradientHook> hooks;
  for (auto const& make : algorithm.gradients) hooks.push_back(make(turn));
  for (auto const& part : algorithm.parts) {
    TrainConfig config;
    config.local_update_steps = kSteps;
    config.optimizer.lr = kLr;
    if (part.adjust) part.adjust(config);
    for (int64_t step = 0; step < planned_steps(config, 100); ++step) {
      auto residual = at::full({2}, -client.b, at::kDouble);
      for (auto const& [name, tensor] : parameters) residual = residual.add(tensor);
      for (auto& [name, tensor] : parameters) tensor.mutable_grad() = residual.mul(client.a);
      for (auto const& hook : hooks) hook(parameters);
      for (auto& [name, tensor] : parameters)
        if (part.trained == Trained::all || algorithm.is_local(name) == (part.trained == Trained::local))
          tensor.sub_(tensor.grad(), config.optimizer.lr);
    }
  }
  turn.update = subtract(parameters, turn.start);
}

double first(TensorMap const& map, std::string const& name) {
  return map.at(name)[0].item<double>();
}

/// After each round: the global u, and each client's state as far as this rank has it.
struct Path {
  std::vector<double> u;
  std::vector<std::map<int64_t, TensorMap>> states;
};

Path train(std::string const& yaml, TensorMap const& begin, Communicator const& comm) {
  auto config = Config::parse(yaml, "test.yaml");
  auto const algorithm = load_fed_config(config).algorithm;
  auto const collective = make_host_collective(comm);
  ServerState server{clone(begin), {}};
  std::erase_if(server.weights, [&](auto const& each) { return algorithm.is_local(each.first); });
  auto const server_step = algorithm.server_step(server.weights);
  std::map<int64_t, TensorMap> states;
  Path path;
  for (int round = 0; round < kRounds; ++round) {
    RoundPlan const plan{round, std::ssize(kClients), {}};
    auto const aggregation = make_exact_aggregation({algorithm.averaged(server.weights), {}}, 48);
    for (int64_t k = 1; k <= std::ssize(kClients); ++k) {
      if (k % comm.size() != comm.rank()) continue;
      auto all = begin;
      for (auto const& [name, tensor] : server.weights) all[name] = tensor;
      auto state = states.contains(k) ? states.at(k) : algorithm.client_state(all);
      auto const start = clone(algorithm.start(server, state));
      auto parameters = clone(start);
      ClientTask const task{k, round, kClients[k - 1].rows / kRows};
      ClientTurn turn{plan, task, server, start, parameters, state, {}, {}, kLr};
      train_parts(algorithm, turn, parameters);
      aggregation->add(message_of(algorithm, turn), task);
      states[k] = clone(state);
    }
    auto const arrived = aggregation->reduce(*collective);
    if (comm.rank() == 0) server_step->step(server, arrived, plan);
    collective->broadcast(server.weights, 0);
    path.u.push_back(first(server.weights, "u"));
    path.states.push_back(states);
  }
  return path;
}

/// Both runs: alone and on all ranks, with the same bits.
Path train_everywhere(std::string const& yaml, TensorMap const& begin) {
  auto const alone = train(yaml, begin, Communicator::self());
  EXPECT_EQ(train(yaml, begin, Communicator::world()).u, alone.u) << yaml;
  return alone;
}

/// v is a client's own: two times the steps on v at 0.2, then the steps on u at 0.05 with that v.
TEST(PersonalMethods, FedRepTrainsOwnParametersFirst) {
  auto const path = train_everywhere(
      "federate: {method: fedrep}\n"
      "personalization: {local_param: [v], lr_linear: 0.2, lr_feature: 0.05, epoch_linear: 2}",
      {{"u", at::zeros({2}, at::kDouble)}, {"v", at::ones({2}, at::kDouble)}});
  double u = 0, own[std::size(kClients)] = {1, 1, 1, 1};
  for (int round = 0; round < kRounds; ++round) {
    double next = 0;
    for (size_t k = 0; k < std::size(kClients); ++k) {
      auto const& [a, b, rows] = kClients[k];
      own[k] = descend(own[k], a, b - u, 0.2, 2 * kSteps);
      next += rows / kRows * descend(u, a, b - own[k], 0.05, kSteps);
      auto const& state = path.states[round].at(static_cast<int64_t>(k) + 1);
      EXPECT_EQ(state.size(), 1U) << "u is nobody's own";
      EXPECT_NEAR(first(state, "v"), own[k], 1e-12) << round << " " << k;
    }
    EXPECT_NEAR(path.u[round], u = next, 1e-12) << round;
  }
}

/// K steps of θ on curvature a + λ with minimum (ab + λ w_k) / (a + λ) for each batch, after which w_k moves.
TEST(PersonalMethods, PFedMeMovesBesideItsModels) {
  constexpr double kWeight = 2, kInner = 0.05, kBeta = 0.7;
  std::string const keys =
      "personalization: {K: 5, regular_weight: 2, lr: 0.05, beta: 0.7}\nfederate: {method: pFedMe}";
  auto const path = train_everywhere(keys, {{"u", at::zeros({2}, at::kDouble)}});
  double u = 0;
  for (int round = 0; round < kRounds; ++round) {
    double mean = 0;
    for (size_t k = 0; k < std::size(kClients); ++k) {
      auto const& [a, b, rows] = kClients[k];
      double w = u, theta = u;
      for (int batch = 0; batch < kSteps; ++batch) {
        theta = descend(theta, a + kWeight, (a * b + kWeight * w) / (a + kWeight), kInner, 5);
        w -= kLr * kWeight * (w - theta);
      }
      mean += rows / kRows * w;
      EXPECT_NEAR(first(path.states[round].at(static_cast<int64_t>(k) + 1), "u"), theta, 1e-12) << round;
    }
    EXPECT_NEAR(path.u[round], u = (1 - kBeta) * u + kBeta * mean, 1e-12) << round;
  }
  // With FedOpt's SGD of rate β the same.
  auto const sgd = train_everywhere(
      "personalization: {K: 5, regular_weight: 2, lr: 0.05}\nfederate: {method: pfedme}\n"
      "fedopt: {use: True, optimizer: {type: SGD, lr: 0.7}}",
      {{"u", at::zeros({2}, at::kDouble)}});
  for (int round = 0; round < kRounds; ++round) EXPECT_NEAR(sgd.u[round], path.u[round], 1e-12);
}

TEST(PersonalMethods, PFedMeNeedsAWeight) {
  auto config =
      Config::parse("federate: {method: pFedMe}\npersonalization: {regular_weight: 0}", "test.yaml");
  EXPECT_ERROR(load_fed_config(config), "pFedMe's global model would never move");
}

TEST(PersonalMethods, FedRepNeedsParametersOfClients) {
  auto config = Config::parse("federate: {method: FedRep}", "test.yaml");
  EXPECT_ERROR(load_fed_config(config), "personalization.local_param names no parameters");
}

}  // namespace
}  // namespace fsllm
