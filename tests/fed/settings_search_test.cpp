// SPDX-License-Identifier: Apache-2.0
// FedEx (hpo.fedex) against its formulas (Khodak et al. 2021, algorithm 2).
#include "fsllm/fed/settings_search.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/fed/config.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

constexpr char const* kKeys = "ss: {train.optimizer.lr: [0.1, 0.2, 0.4], train.local_update_steps: [1, 2]}";

FedAlgorithm algorithm_of(std::string const& more) {
  auto config = Config::parse(fmt::format("hpo: {{fedex: {{use: True, {}{}}}}}", kKeys, more), "test.yaml");
  return load_fed_config(config).algorithm;
}

/// A turn of a round: its setting, its share of the validation rows, its loss.
struct Turn {
  int64_t lr, steps;
  double share, loss;
};

/// A round's messages, added up, move the server.
void play(FedAlgorithm const& algorithm, ServerStep& server_step, ServerState& server,
          std::vector<Turn> turns) {
  Message arrived{{{"w", at::zeros({1}, at::kDouble)}}, algorithm.summed(server.weights), {}};
  RoundPlan const plan{0, 3, {}, {}};
  for (auto const& each : turns) {
    TensorMap parameters{{"w", at::zeros({1})}}, state;
    ClientTask const task{1, 0, 1, 1, each.lr + 3 * each.steps, each.share};
    ClientTurn turn{plan, task, server, parameters, parameters, state, {{"w", at::zeros({1})}}, {}};
    turn.validation = each.loss;
    for (auto const& [name, sum] : message_of(algorithm, turn).sum) arrived.sum.at(name).add_(sum);
  }
  server_step.step(server, arrived, plan);
}

struct Server {
  explicit Server(std::string const& more) : algorithm(algorithm_of(more)) {
    state.weights = {{"w", at::zeros({1})}};
    state.extra = algorithm.server_extra(state.weights);
    step = algorithm.server_step(state.weights);
  }
  std::vector<double> probabilities() const {
    auto const all = state.extra.at("fedex.probabilities");
    return {all.data_ptr<double>(), all.data_ptr<double>() + all.numel()};
  }
  FedAlgorithm algorithm;
  ServerState state;
  std::unique_ptr<ServerStep> step;
};

std::vector<double> moved(std::vector<double> theta, std::vector<double> const& gradient, double eta) {
  double sum = 0;
  for (size_t i = 0; i < theta.size(); ++i) sum += theta[i] *= std::exp(-eta * gradient[i]);
  for (auto& each : theta) each /= sum;
  return theta;
}

void expect_near(std::vector<double> const& got, std::vector<double> const& expected, size_t first) {
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(got.at(first + i), expected[i], 1e-12) << i;
}

TEST(SettingsSearch, MovesAsThePaperSays) {
  Server server(", gamma: 0.5");
  expect_near(server.probabilities(), {1 / 3., 1 / 3., 1 / 3., 0.5, 0.5}, 0);
  play(server.algorithm, *server.step, server.state, {{0, 0, 0.25, 4}, {2, 1, 0.75, 2}});
  // λ = 0 before the first loss is known; η = √(2 log k) / √(Σ ‖∇‖²)
  std::vector<double> const lr1{0.25 * 4 * 3, 0, 0.75 * 2 * 3}, steps1{0.25 * 4 * 2, 0.75 * 2 * 2};
  auto const lr = moved({1 / 3., 1 / 3., 1 / 3.}, lr1, std::sqrt(2 * std::log(3.)) / 4.5),
             steps = moved({0.5, 0.5}, steps1, std::sqrt(2 * std::log(2.)) / 3);
  expect_near(server.probabilities(), lr, 0);
  expect_near(server.probabilities(), steps, 3);
  EXPECT_NEAR(server.state.facts.at("fedex.train.optimizer.lr=0.4"), lr[2], 1e-12);

  play(server.algorithm, *server.step, server.state, {{1, 1, 1, 3}});  // the first round's mean was 2.5
  auto const gradient = (3 - 2.5) / lr[1], of_steps = (3 - 2.5) / steps[1];
  auto const lr2 =
      moved(lr, {0, gradient, 0}, std::sqrt(2 * std::log(3.)) / std::sqrt(4.5 * 4.5 + gradient * gradient));
  expect_near(server.probabilities(), lr2, 0);
  expect_near(server.probabilities(),
              moved(steps, {0, of_steps}, std::sqrt(2 * std::log(2.)) / std::sqrt(9 + of_steps * of_steps)),
              3);

  Server other(", gamma: 0.5");
  other.state = server.state;
  other.step->load_state(server.step->state());
  for (auto* each : {&server, &other}) play(each->algorithm, *each->step, each->state, {{0, 1, 1, 5}});
  EXPECT_EQ(server.probabilities(), other.probabilities());
  auto const base = (3 + 0.5 * 2.5) / 1.5;  // a discounted mean
  auto const third = (5 - base) / lr2[0];
  expect_near(server.probabilities(),
              moved(lr2, {third, 0, 0},
                    std::sqrt(2 * std::log(3.)) / std::sqrt(4.5 * 4.5 + gradient * gradient + third * third)),
              0);
}

TEST(SettingsSearch, StepsAreSizedAsAsked) {
  Server constant(", sched: constant, eta0: 0.1"), aggressive(", sched: aggressive");
  for (auto* each : {&constant, &aggressive}) play(each->algorithm, *each->step, each->state, {{0, 0, 1, 4}});
  expect_near(constant.probabilities(), moved({1 / 3., 1 / 3., 1 / 3.}, {12, 0, 0}, 0.1), 0);
  expect_near(aggressive.probabilities(),
              moved({1 / 3., 1 / 3., 1 / 3.}, {12, 0, 0}, std::sqrt(2 * std::log(3.)) / 12), 0);
  Server still(", cutoff: 0.8");  // log 3 is above it, log 2 is not
  play(still.algorithm, *still.step, still.state, {{0, 0, 1, 4}});
  EXPECT_LT(still.probabilities()[0], 1 / 3.);
  expect_near(still.probabilities(), {0.5, 0.5}, 3);
}

TEST(SettingsSearch, TurnsDrawByTheDistribution) {
  Server server("");
  server.state.extra["fedex.probabilities"] = at::tensor({0.7, 0.3, 0.0, 0.1, 0.9}, at::kDouble);
  std::map<int64_t, int> drawn;
  constexpr int kDraws = 20000;
  for (int64_t i = 0; i < kDraws; ++i)
    ++drawn[draw_setting(server.algorithm.searched, server.state, 5, i % 100, i / 100)];
  for (int64_t choice = 0; choice < settings_of(server.algorithm.searched); ++choice) {
    auto const values = values_of(server.algorithm.searched, choice);
    double const p = std::vector<double>{0.7, 0.3, 0}[values[0]] * std::vector<double>{0.1, 0.9}[values[1]];
    EXPECT_NEAR(drawn[choice], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)) + 1e-9) << choice;
  }
  EXPECT_EQ(draw_setting(server.algorithm.searched, server.state, 5, 3, 4),
            draw_setting(server.algorithm.searched, server.state, 5, 3, 4));
  auto const likeliest = likeliest_settings(server.algorithm.searched, server.state);
  EXPECT_EQ(likeliest.at("train.optimizer.lr").at("value"), "0.1");
  EXPECT_EQ(likeliest.at("train.local_update_steps").at("probability"), 0.9);
}

}  // namespace
}  // namespace fsllm
