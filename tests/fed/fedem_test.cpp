// SPDX-License-Identifier: Apache-2.0
// FedEM's equations by hand, what its server does, and whole rounds. Runs on 1, 2 and 4 ranks.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <array>
#include <cmath>
#include <numeric>

#include "fsllm/fed/config.hpp"
#include "fsllm/train/local_training.hpp"
#include "fsllm/train/loss.hpp"
#include "rounds.hpp"

namespace fsllm::test {
namespace {

FedAlgorithm algorithm_of(std::string const& yaml) {
  auto config = Config::parse(yaml, "fedem.yaml");
  return load_fed_config(config).algorithm;
}

/// q(m) = π_m e^-L_m / Σ π e^-L and -log Σ π e^-L, where e^-L alone is 0 in float64 too.
TEST(FedEm, WeighsComponentsByTheirLikelihood) {
  auto const losses = at::tensor({1.0, 2.0, 0.5, 0.5, 2000.0, 2001.0}, at::kDouble).view({3, 2});
  auto const mixture = at::tensor({0.25, 0.75}, at::kDouble);
  auto const q = responsibilities(losses, mixture);
  auto const loss = mixture_losses(losses, mixture);
  for (int row = 0; row < 3; ++row) {
    double const a = losses[row][0].item<double>(), b = losses[row][1].item<double>(), least = std::min(a, b);
    double const x = 0.25 * std::exp(least - a), y = 0.75 * std::exp(least - b);
    EXPECT_NEAR(q[row][0].item<double>(), x / (x + y), 1e-12);
    EXPECT_NEAR(q[row][1].item<double>(), y / (x + y), 1e-12);
    EXPECT_NEAR(loss[row].item<double>(), least - std::log(x + y), 1e-12 * (1 + least));
  }
  EXPECT_EQ(main_component({{kMixture, mixture}}), 1);
  EXPECT_EQ(main_component({{kMixture, at::tensor({0.5, 0.5}, at::kDouble)}}), 0);
}

/// A component that a client has given up stays so: 0 · anything.
TEST(FedEm, AComponentOfNoWeightHasNoShare) {
  auto const q =
      responsibilities(at::tensor({9.0, 1.0}, at::kDouble).view({1, 2}), at::tensor({1.0, 0.0}, at::kDouble));
  EXPECT_EQ(q[0][0].item<double>(), 1);
  EXPECT_EQ(q[0][1].item<double>(), 0);
}

/// Each component moves by the mean of its own updates, under a server optimiser with its own moments.
TEST(FedEm, MovesEachComponentByItsMean) {
  for (bool const adam : {false, true}) {
    auto const algorithm = algorithm_of(
        std::string("federate: {method: fedem, client_num: 2}\nmodel: {model_num_per_trainer: 3}\n") +
        (adam ? "fedopt: {use: True, optimizer: {type: FedAdam, lr: 0.1, tau: 0.01}}\n" : ""));
    ServerState server{{{"w", at::full({2}, 1.0, at::kDouble)}}, {}, {}, {}};
    server.extra = algorithm.server_extra(server.weights);
    EXPECT_EQ(server.extra.size(), 2U);
    EXPECT_EQ(algorithm.averaged(server.weights).size(), 3U);
    auto const step = algorithm.server_step(server.weights);
    double w[3] = {1, 1, 1}, first[3] = {}, second[3] = {1e-4, 1e-4, 1e-4};
    for (int round = 0; round < 3; ++round) {
      Message arrived;
      for (int m = 0; m < 3; ++m) {
        double const update = 0.1 * (m + 1) - 0.05 * round;
        arrived.mean.emplace(component_name(m, "w"), at::full({2}, update, at::kDouble));
        first[m] = 0.9 * first[m] + 0.1 * update;
        second[m] = 0.99 * second[m] + 0.01 * update * update;
        w[m] += adam ? 0.1 * first[m] / (std::sqrt(second[m]) + 0.01) : update;
      }
      step->step(server, arrived, {round, 2, {}});
      for (int m = 0; m < 3; ++m)
        EXPECT_NEAR(component_of(server, m).at("w")[1].item<double>(), w[m], 1e-12) << adam << round << m;
    }
    // Moments go on.
    auto const again = algorithm.server_step(server.weights);
    again->load_state(step->state());
    EXPECT_EQ(again->state().size(), step->state().size());
  }
}

/// Two rounds of FedEM's algorithm 1, where the losses of rows come from a pass for each.
TEST_F(Rounds, MixturesFollowTheirEquations) {
  auto const more = all_clients(kFedEm);
  auto const run = train(Communicator::world(), "mixture", 2, more);
  if (Communicator::world().rank() != 0) return;
  auto config = config_of(2, more);
  Parts parts(config, dir_.path());
  auto& [fed, settings, model_, peft, live_, data] = parts;
  auto const& model = model_;
  auto& live = live_;
  std::vector<TensorMap> components{clone(live), fresh(*peft, 11)};
  std::vector<std::array<double, 2>> mixtures(kClients, {0.5, 0.5});
  auto const losses_under = [&](int m, TokenSplit const& split) {
    at::NoGradGuard const no_grad;
    copy_values(live, components[m]);
    std::vector<double> losses;
    for (int64_t row = 0; row < split.rows(); ++row) {
      Batch batch;
      append_row(batch, split, row);
      losses.push_back(summed_loss(*model, batch).item<double>());
    }
    return losses;
  };
  for (int round = 0; round < 2; ++round) {
    auto next = std::vector{clone(components[0]), clone(components[1])};
    for (int k = 1; k <= kClients; ++k) {
      auto const& rows = data.shard(k)->train;
      auto const first = losses_under(0, rows), second = losses_under(1, rows);
      auto& mixture = mixtures[k - 1];
      std::vector<double> q[2];
      for (size_t row = 0; row < first.size(); ++row) {
        double const ratio = mixture[1] / mixture[0] * std::exp(first[row] - second[row]);
        q[0].push_back(1 / (1 + ratio));
        q[1].push_back(ratio / (1 + ratio));
      }
      for (int m = 0; m < 2; ++m) {
        mixture[m] = std::accumulate(q[m].begin(), q[m].end(), 0.0) / static_cast<double>(rows.rows());
        copy_values(live, components[m]);
        LocalTraining training(*model, live, rows, settings, {fed.seed, k, round, 2});
        training.weigh_rows(q[m]);
        while (!training.done()) training.step();
        for (auto& [name, tensor] : next[m])  // 2k rows of 30
          tensor.add_(live.at(name).detach().sub(components[m].at(name)), k / 15.0);
      }
    }
    components = std::move(next);
  }
  double sum = 0, targets = 0;
  for (int k = 1; k <= kClients; ++k) {
    auto const& split = data.shard(k)->val;
    sum -= std::log(mixtures[k - 1][0] * std::exp(-losses_under(0, split)[0]) +
                    mixtures[k - 1][1] * std::exp(-losses_under(1, split)[0]));
    targets += static_cast<double>(std::accumulate(split.target.begin(), split.target.end(), 0));
  }
  EXPECT_NEAR(run.losses.back(), sum / targets, 1e-6 * sum / targets);
  EXPECT_GT(std::abs(mixtures[4][0] - 0.5), 1e-4) << "components have parted";
  for (auto const& [name, tensor] : run.values)  // the last that is saved
    EXPECT_TRUE(tensors_near(tensor, components[1].at(name), 2e-6)) << name;
}

TEST(FedEm, RefusesWhatHasNoMeaning) {
  std::string const fedem = "federate: {method: fedem, client_num: 2}\n";
  EXPECT_ERROR(algorithm_of(fedem), "a mixture of one is FedAvg");
  auto const two = fedem + "model: {model_num_per_trainer: 2}\n";
  EXPECT_ERROR(algorithm_of(two + "aggregator: {robust_rule: median}\n"), "which sends several models");
  EXPECT_ERROR(algorithm_of(two + "personalization: {local_param: [lora_B]}\n"), "keep a state of their own");
  EXPECT_ERROR(algorithm_of(two + "asyn: {use: True}\n"), "asyn.use");
  EXPECT_ERROR(algorithm_of(two + "hpc: {clients_per_pass: 2}\n"), "hpc.clients_per_pass");
  EXPECT_ERROR(algorithm_of(two + "finetune: {before_eval: True}\n"), "no one model");
  auto algorithm = algorithm_of(two);
  EXPECT_ERROR(bind_components(algorithm, {}), "full parameters");
  ServerState server{{{"w", at::ones({2})}}, {}, {}, {}};
  server.extra = algorithm.server_extra(server.weights);
  bind_components(algorithm, {.fresh = [](uint64_t) { return TensorMap{{"w", at::ones({2})}}; }});
  EXPECT_ERROR(algorithm.begin(server), "would begin alike");
}

}  // namespace
}  // namespace fsllm::test
