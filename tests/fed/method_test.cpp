// SPDX-License-Identifier: Apache-2.0
// Federated methods on quadratic losses a/2 (w - b)², of which T steps of gradient descent have a closed
// form, in float64. Runs on 1, 2 and 4 ranks.
#include <ATen/ATen.h>

#include <cmath>

#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/config.hpp"
#include "support.hpp"

namespace fsllm {

void signsgd(Config& config, std::string const& method,
             FedAlgorithm& algorithm);  // the example of CONTRIBUTING.md

namespace {

struct Client {
  double a, b, rows;
};
constexpr Client kClients[] = {{1, 3, 10}, {0.5, -1, 30}, {2, 0.25, 5}, {1.5, 7, 11}};
constexpr int kRounds = 5, kSteps = 4;
constexpr double kLr = 0.1;

double rows_of_all() {
  double sum = 0;
  for (auto const& client : kClients) sum += client.rows;
  return sum;
}

/// w after T steps on curvature `a` with minimum `b`.
double descend(double w, double a, double b) {
  return b + std::pow(1 - kLr * a, kSteps) * (w - b);
}

FedAlgorithm algorithm_of(std::string const& yaml) {
  auto config = Config::parse(yaml, "test.yaml");
  auto const fed = load_fed_config(config);
  config.finish();
  return fed.algorithm;
}

/// All steps of one client by the contract.
ClientTurn take_turn(FedAlgorithm const& algorithm, RoundPlan const& plan, ClientTask const& task,
                     ServerState const& server, TensorMap const& start, TensorMap& parameters,
                     TensorMap& state) {
  auto const& client = kClients[task.client - 1];
  ClientTurn turn{plan, task, server, start, parameters, state, {}, {}};
  std::vector<GradientHook> hooks;
  for (auto const& make : algorithm.gradients) hooks.push_back(make(turn));
  auto& w = parameters.at("w");
  for (int step = 0; step < kSteps; ++step) {
    w.mutable_grad() = (w - client.b) * client.a;
    for (auto const& hook : hooks) hook(parameters);
    w.sub_(w.grad(), kLr);
  }
  turn.result.lr_sum = kSteps * kLr;
  turn.update = subtract(parameters, start);
  return turn;
}

/// The global w after each round. Client k belongs to rank k modulo the number of ranks.
std::vector<double> train(FedAlgorithm const& algorithm, Communicator const& comm) {
  auto const collective = make_host_collective(comm);
  ServerState server{{{"w", at::zeros({2}, at::kDouble)}}, {}};
  if (algorithm.server_extra) server.extra = algorithm.server_extra(server.weights);
  auto const server_step = algorithm.server_step(server.weights);
  std::map<int64_t, TensorMap> states;
  std::vector<double> path;
  for (int round = 0; round < kRounds; ++round) {
    RoundPlan plan{round, std::ssize(kClients), {}};
    for (int64_t k = 1; k <= plan.all_clients; ++k)
      plan.cohorts.push_back({{k, round, kClients[k - 1].rows / rows_of_all()}});
    auto const layout_of = [&](FedAlgorithm::Layout const& layout) {
      return layout ? layout(server.weights) : TensorMap{};
    };
    auto const aggregation =
        make_exact_aggregation({layout_of(algorithm.averaged), layout_of(algorithm.summed)}, 48);
    for (auto const& task : tasks(plan)) {
      if (task.client % comm.size() != comm.rank()) continue;
      auto& state = states[task.client];
      if (state.empty() && algorithm.client_state) state = algorithm.client_state(server.weights);
      auto const start = clone(algorithm.start(server, state));
      auto parameters = clone(start);
      auto turn = take_turn(algorithm, plan, task, server, start, parameters, state);
      aggregation->add(message_of(algorithm, turn), task);
    }
    auto const arrived = aggregation->reduce(*collective);
    if (comm.rank() == 0) server_step->step(server, arrived, plan);
    collective->broadcast(server.weights, 0);
    if (!server.extra.empty()) collective->broadcast(server.extra, 0);
    path.push_back(server.weights.at("w")[0].item<double>());
  }
  return path;
}

void expect_path(FedAlgorithm const& algorithm, std::string const& yaml,
                 std::vector<double> const& expected) {
  auto const alone = train(algorithm, Communicator::self());
  for (size_t round = 0; round < expected.size(); ++round)
    EXPECT_NEAR(alone[round], expected[round], 1e-12) << yaml << " " << round;
  EXPECT_EQ(train(algorithm, Communicator::world()), alone) << yaml;
}

void expect_path(std::string const& yaml, std::vector<double> const& expected) {
  expect_path(algorithm_of(yaml), yaml, expected);
}

TEST(Methods, FedAvgIsTheMeanOfTheClients) {
  std::vector<double> expected;
  double w = 0;
  for (int round = 0; round < kRounds; ++round) {
    double next = 0;
    for (auto const& [a, b, rows] : kClients) next += rows / rows_of_all() * descend(w, a, b);
    expected.push_back(w = next);
  }
  expect_path("", expected);
}

/// μ/2 (w - w_t)² beside a/2 (w - b)² has curvature a + μ and its minimum at (ab + μ w_t) / (a + μ).
TEST(Methods, FedProxPullsTowardsTheGlobalModel) {
  constexpr double kMu = 0.7;
  std::vector<double> expected;
  double w = 0;
  for (int round = 0; round < kRounds; ++round) {
    double next = 0;
    for (auto const& [a, b, rows] : kClients)
      next += rows / rows_of_all() * descend(w, a + kMu, (a * b + kMu * w) / (a + kMu));
    expected.push_back(w = next);
  }
  expect_path("fedprox: {use: True, mu: 0.7}", expected);
  expect_path("{federate: {method: FedProx}, fedprox: {mu: 0.7}}", expected);
}

/// The corrected gradient a (w - b) - c_k + c is that of a minimum at b + (c_k - c) / a.
TEST(Methods, ScaffoldCorrectsTheDriftOfClients) {
  std::vector<double> expected;
  double w = 0, c = 0, own[std::size(kClients)] = {};
  for (int round = 0; round < kRounds; ++round) {
    double next = 0, change = 0;
    for (size_t k = 0; k < std::size(kClients); ++k) {
      auto const& [a, b, rows] = kClients[k];
      double const y = descend(w, a, b + (own[k] - c) / a), before = own[k];
      own[k] += -c + (w - y) / (kSteps * kLr);
      next += rows / rows_of_all() * y;
      change += own[k] - before;
    }
    expected.push_back(w = next);
    c += change / static_cast<double>(std::size(kClients));
  }
  expect_path("federate: {method: scaffold}", expected);
}

/// Both coordinates of w are the same, so the norm of an update is √2 of its length.
TEST(Methods, NormBoundingShortensLongUpdates) {
  constexpr double kBound = 1;
  std::vector<double> expected;
  double w = 0;
  int shortened = 0, whole = 0;
  for (int round = 0; round < kRounds; ++round) {
    double next = w;
    for (auto const& [a, b, rows] : kClients) {
      double const update = descend(w, a, b) - w, norm = std::sqrt(2) * std::abs(update);
      ++(norm > kBound ? shortened : whole);
      next += rows / rows_of_all() * update * std::min(1.0, kBound / norm);
    }
    expected.push_back(w = next);
  }
  EXPECT_TRUE(shortened > 0 && whole > 0) << shortened << " " << whole;
  std::string const rule = "aggregator: {robust_rule: normbounding, BFT_args: {normbounding_norm_bound: ";
  expect_path(rule + "1}}", expected);
  EXPECT_ERROR(algorithm_of(rule + "0}}"), "needs a bound");
  EXPECT_ERROR(algorithm_of("{federate: {method: local}, " + rule + "1}}}"), "nothing is sent");
}

/// Each round moves w by one step in the direction of most clients.
TEST(Methods, TheExampleFollowsTheMajority) {
  FedAlgorithm algorithm;
  auto config = Config::parse("signsgd: {step: 0.5}", "test.yaml");
  signsgd(config, "signsgd", algorithm);
  std::vector<double> expected;
  double w = 0;
  for (int round = 0; round < kRounds; ++round) {
    int votes = 0;
    for (auto const& [a, b, rows] : kClients) votes += b > w ? 1 : b < w ? -1 : 0;
    expected.push_back(w += votes > 0 ? 0.5 : votes < 0 ? -0.5 : 0);
  }
  expect_path(algorithm, "signsgd", expected);
}

/// Five clients whose updates lie at 0, 1, 2, 3 and 10 on a line through two tensors; squared distances are 5
/// (x_i - x_j)². With f = 1 each one's two nearest count: scores 25, 10, 10, 25 and 565.
TEST(Methods, KrumTakesTheClosestUpdates) {
  auto const combined = [](std::string const& yaml, Communicator const& comm) {
    TensorMap const layout{{"a", at::zeros({4}, at::kDouble)}, {"b", at::zeros({4}, at::kDouble)}};
    auto const aggregation = make_gathering(layout, algorithm_of(yaml));
    double const places[] = {0, 1, 2, 3, 10}, weights[] = {0.1, 0.2, 0.3, 0.15, 0.25};
    for (int64_t k = 4; k >= 0; --k)
      if (k % comm.size() == comm.rank())
        aggregation->add(
            {{{"a", at::full({4}, places[k] / 2, at::kDouble)}, {"b", at::full({4}, places[k], at::kDouble)}},
             {}},
            {k + 1, 0, weights[k]});
    auto const mean = aggregation->reduce(*make_host_collective(comm)).mean;
    return comm.rank() == 0 ? mean.at("b")[1].item<double>() : 0.0;
  };
  std::string const krum = "aggregator: {robust_rule: krum, byzantine_node_num: 1, BFT_args: {krum_agg_num: ";
  auto const self = Communicator::self(), world = Communicator::world();
  EXPECT_NEAR(combined(krum + "1}}", self), 1, 1e-12) << "of equal scores the first";
  EXPECT_NEAR(combined(krum + "2}}", self), (0.2 * 1 + 0.3 * 2) / 0.5, 1e-12);
  EXPECT_NEAR(combined(krum + "3}}", self), (0.2 * 1 + 0.3 * 2) / 0.6, 1e-12);
  EXPECT_NEAR(combined(krum + "4}}", self), (0.2 * 1 + 0.3 * 2 + 0.15 * 3) / 0.75, 1e-12);
  for (auto const* chosen : {"1}}", "3}}"}) {
    auto const together = combined(krum + chosen, world);
    auto const alone = combined(krum + chosen, self);
    EXPECT_EQ(together, world.rank() == 0 ? alone : 0);
  }
  EXPECT_ERROR(combined("aggregator: {robust_rule: krum, byzantine_node_num: 2}", self),
               "krum needs more than 6 clients a round, and 5 train");
  EXPECT_ERROR(algorithm_of("{federate: {method: local}, aggregator: {robust_rule: krum}}"),
               "nothing is sent");
  EXPECT_ERROR(algorithm_of("{federate: {method: scaffold}, aggregator: {robust_rule: krum}}"), "needs sums");
}

/// Seven clients, two of them far off; a tensor of one coordinate and one of two, so that ranks own one each.
TEST(Methods, RulesOfCoordinates) {
  double const sent[7][3] = {{0, 5, 0}, {1, 4, 1.5},   {2, 3, 2},   {3, 2, 3},
                             {4, 1, 5}, {100, -50, 8}, {-100, 0, 1}};
  auto const combined = [&](std::string const& yaml, Communicator const& comm, int64_t clients = 7) {
    TensorMap const layout{{"a", at::zeros({1}, at::kDouble)}, {"b", at::zeros({2}, at::kDouble)}};
    auto const aggregation = make_gathering(layout, algorithm_of(yaml));
    for (int64_t k = clients - 1; k >= 0; --k)
      if (k % comm.size() == comm.rank())
        aggregation->add({{{"a", at::full({1}, sent[k][0], at::kDouble)},
                           {"b", at::tensor({sent[k][1], sent[k][2]}, at::kDouble)}},
                          {}},
                         {k + 1, 0, 0.1 * static_cast<double>(k + 1)});
    auto const got = aggregation->reduce(*make_host_collective(comm)).mean;
    if (comm.rank() != 0) return std::vector<double>{};
    return std::vector<double>{got.at("a")[0].item<double>(), got.at("b")[0].item<double>(),
                               got.at("b")[1].item<double>()};
  };
  auto const self = Communicator::self(), world = Communicator::world();
  auto const expect = [&](std::string const& yaml, std::vector<double> const& values, int64_t clients = 7) {
    auto const alone = combined(yaml, self, clients), together = combined(yaml, world, clients);
    for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(alone[i], values[i], 1e-12) << yaml << " " << i;
    EXPECT_EQ(together, world.rank() == 0 ? alone : std::vector<double>{}) << yaml;
  };
  expect("aggregator: {robust_rule: median}", {2, 2, 2});
  expect("aggregator: {robust_rule: median}", {2.5, 2.5, 2.5}, 6);
  std::string const trimmed =
      "aggregator: {robust_rule: trimmedmean, BFT_args: {trimmedmean_excluded_ratio: ";
  expect(trimmed + "0.2}}", {2, 2, 2.5});
  expect(trimmed + "0.1}}", {10.0 / 7, -5, 20.5 / 7});
  // The five that are near, then of each coordinate the three values nearest to the median.
  expect("aggregator: {robust_rule: bulyan, byzantine_node_num: 1}", {2, 3, 6.5 / 3});
  EXPECT_ERROR(combined("aggregator: {robust_rule: bulyan, byzantine_node_num: 2}", self),
               "bulyan needs 11 clients a round, and 7 train");
  EXPECT_ERROR(combined(trimmed + "0.5}}", self, 6), "of 6 clients a round none is left");
}

}  // namespace
}  // namespace fsllm
