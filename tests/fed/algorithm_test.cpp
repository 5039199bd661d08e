// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/algorithm.hpp"

#include <ATen/ATen.h>

#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/config.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

FedConfig config_of(std::string const& yaml) {
  auto config = Config::parse(yaml, "test.yaml");
  auto const loaded = load_fed_config(config);
  config.finish();
  return loaded;
}

TensorMap one(double value) {
  return {{"w", at::full({2}, value, at::kFloat)}};
}

/// Two server steps with the mean update 0.5, from 1.
double two_steps(std::string const& yaml, bool through_state) {
  auto const config = config_of(yaml);
  ServerState server{one(1), {}};
  auto step = config.algorithm.server_step(server.weights);
  step->step(server, {one(0.5), {}}, {0});
  if (through_state) {
    auto const state = step->state();
    step = config.algorithm.server_step(server.weights);
    step->load_state(state);
  }
  step->step(server, {one(0.5), {}}, {1});
  return server.weights.at("w")[0].item<double>();
}

TEST(Algorithm, EveryRowTakesStepsAndCarriesItsState) {
  for (auto const& row : algorithm_table()) {
    auto yaml =
        "federate: {method: " + row.name + "}\nfedopt: {optimizer: {type: SGD, lr: 0.5, momentum: 0.9}}";
    if (row.name == "fedem") yaml += "\nmodel: {model_num_per_trainer: 2}";
    if (row.name == "fedrep") yaml += "\npersonalization: {local_param: [v]}";
    EXPECT_FALSE(row.what.empty());
    EXPECT_EQ(two_steps(yaml, false), two_steps(yaml, true)) << row.name;
  }
}

TEST(Algorithm, FedAvgAddsTheMean) {
  EXPECT_EQ(two_steps("", false), 2);
}

TEST(Algorithm, FedOptIsTheOptimiserOnTheNegativeMean) {
  // SGD with momentum: 1 + 0.5·0.5 + 0.5·(0.9·0.5 + 0.5)
  EXPECT_NEAR(two_steps("fedopt: {use: True, optimizer: {type: SGD, lr: 0.5, momentum: 0.9}}", false), 1.725,
              1e-6);
  // Adam's first steps are lr long.
  EXPECT_NEAR(two_steps("fedopt: {use: True, optimizer: {type: Adam, lr: 0.1}}", false), 1.2, 1e-5);
  // StepLR: lr 0.5 in round 0, 0.05 in round 1.
  EXPECT_NEAR(two_steps("fedopt: {use: True, annealing: True, annealing_step_size: 1, annealing_gamma: 0.1, "
                        "optimizer: {lr: 0.5}}",
                        false),
              1.275, 1e-6);
}

/// Two steps with Δ = 0.5 from w = 1 by hand: m = 0.05, 0.095; η 0.1, β 0.9 and 0.99, τ 0.01.
TEST(Algorithm, AdaptiveServersFollowReddi) {
  auto const path = [](double v1, double v2) {
    return 1 + 0.1 * 0.05 / (std::sqrt(v1) + 0.01) + 0.1 * 0.095 / (std::sqrt(v2) + 0.01);
  };
  auto const yaml = [](std::string const& type) {
    return "fedopt: {use: True, optimizer: {type: " + type + ", lr: 0.1, tau: 0.01}}";
  };
  double const start = 1e-4, square = 0.25;
  double const adam = 0.99 * start + 0.01 * square, yogi = start + 0.01 * square;
  EXPECT_NEAR(two_steps(yaml("FedAdam"), false), path(adam, 0.99 * adam + 0.01 * square), 1e-6);
  EXPECT_NEAR(two_steps(yaml("FedYogi"), false), path(yogi, yogi + 0.01 * square), 1e-6);
  EXPECT_NEAR(two_steps(yaml("FedAdagrad"), false), path(start + square, start + 2 * square), 1e-6);
  for (auto const* type : {"FedAdam", "FedYogi", "FedAdagrad"})
    EXPECT_EQ(two_steps(yaml(type), false), two_steps(yaml(type), true)) << type;
}

/// v above Δ² falls: v = τ² - (1 - β₂) Δ².
TEST(Algorithm, FedYogiLetsALargeSecondMomentFall) {
  auto const config =
      config_of("fedopt: {use: True, optimizer: {type: FedYogi, lr: 1, tau: 2, betas: [0, 0.5]}}");
  ServerState server{one(0), {}};
  config.algorithm.server_step(server.weights)->step(server, {one(1), {}}, {0});
  EXPECT_NEAR(server.weights.at("w")[0].item<double>(), 1 / (std::sqrt(4 - 0.5) + 2), 1e-6);
}

/// The first step of Nesterov's momentum is 0.7 · 1.9 Δ, the second 0.7 (1 + 0.9 · 1.9) Δ.
TEST(Algorithm, DilocoIsNesterovsMomentum) {
  EXPECT_NEAR(two_steps("federate: {method: diloco}", false),
              1 + 0.7 * 0.5 * 1.9 + 0.7 * 0.5 * (1 + 0.9 * 1.9), 1e-6);
  EXPECT_NEAR(two_steps("{federate: {method: diloco}, fedopt: {optimizer: {momentum: 0, lr: 1}}}", false), 2,
              1e-6);
}

/// v = β v + Δ, w += η v (Hsu et al. 2019): SGD with momentum.
TEST(Algorithm, FedAvgM) {
  EXPECT_NEAR(two_steps("fedopt: {use: True, optimizer: {type: SGD, lr: 1, momentum: 0.9}}", false),
              1 + 0.5 + 0.95, 1e-6);
}

/// The mean of w after rounds 2, 5 and 8, while w follows FedAvgM; state is saved and loaded in every round.
TEST(Algorithm, FedSwaAveragesSomeRounds) {
  std::string const momentum = "fedopt: {use: True, optimizer: {type: SGD, lr: 1, momentum: 0.9}}\n";
  auto const plain = config_of(momentum);
  auto const config =
      config_of(momentum + "fedswa: {use: True, start_rnd: 2, freq: 3}\nfederate: {total_round_num: 8}");
  ServerState alone{one(1), {}}, server{one(1), {}};
  auto step = plain.algorithm.server_step(alone.weights);
  auto averaging = config.algorithm.server_step(server.weights);
  double sum = 0;
  int64_t models = 0;
  for (int64_t round = 0; round < 8; ++round) {
    auto const mean = one(0.25 * static_cast<double>(round + 1));
    step->step(alone, {mean, {}}, {round});
    averaging->step(server, {mean, {}}, {round});
    EXPECT_TRUE(server.weights.at("w").equal(alone.weights.at("w"))) << "clients begin with w";
    if (round == 1 || round == 4 || round == 7) {
      sum += alone.weights.at("w")[0].item<double>();
      ++models;
    }
    auto const state = clone(averaging->state());
    averaging = config.algorithm.server_step(server.weights);
    averaging->load_state(state);
    EXPECT_EQ(averaging->average().models, models) << round;
  }
  EXPECT_EQ(models, 3);
  EXPECT_NEAR(averaging->average().weights.at("w")[1].item<double>(), sum / 3, 1e-5 * sum);
}

TEST(Algorithm, FedSwaNeedsOneGlobalModel) {
  auto const refused = [](std::string const& more, std::string const& message) {
    EXPECT_ERROR(config_of("fedswa: {use: True, start_rnd: 2}\n" + more), message);
  };
  refused("federate: {method: local}", "there is no global model");
  refused("federate: {method: ditto}", "judged by parameters of their own");
  refused("federate: {method: pfedme}", "judged by parameters of their own");
  refused("personalization: {local_param: [lora_B]}", "judged by parameters of their own");
  refused("federate: {lora_aggregation: fedsvd}", "federate.lora_aggregation = fedsvd");
  refused("federate: {total_round_num: 1}", "fedswa.start_rnd = 2 (the run has 1 rounds");
}

TEST(Algorithm, FineTuningIsChecked) {
  EXPECT_FALSE(config_of("finetune: {local_update_steps: 3}").finetune);
  EXPECT_ERROR(config_of("finetune: {simple_tuning: True}"), "finetune.before_eval is False");
  EXPECT_ERROR(config_of("finetune: {before_eval: True, simple_tuning: True}"),
               "finetune.local_param names no parameters");
  auto const config = config_of(
      "finetune: {before_eval: True, batch_or_epoch: batch, local_update_steps: 3, "
      "optimizer: {type: AdamW, lr: 0.5}}");
  TrainConfig train;
  train.accumulation = 4;
  train.schedule.type = "cosine";
  auto const tuned = tuning_config(*config.finetune, train);
  EXPECT_EQ(tuned.local_update_steps, 3);
  EXPECT_FALSE(tuned.epochs);
  EXPECT_EQ(tuned.optimizer.type, "AdamW");
  EXPECT_EQ(tuned.accumulation, 4);
  EXPECT_EQ(tuned.schedule.type, "");
  EXPECT_ERROR(check_words("finetune.local_param", {"v"}, one(1)),
               "no parameter that is trained has 'v' in its name");
}

TEST(Algorithm, ArgumentsOfServersAreChecked) {
  EXPECT_ERROR(config_of("fedopt: {use: True, optimizer: {type: FedAdam, momentum: 0.5}}"),
               "FedAdam has no such argument");
  EXPECT_ERROR(config_of("fedopt: {use: True, optimizer: {type: FedAdam, tau: 0}}"), "fedopt.optimizer.tau");
}

TEST(Aggregation, WeighsAndSaysWhoDiverged) {
  Message const layout{one(0), {}};
  for (bool const exact : {true, false}) {
    auto const aggregation = exact ? make_exact_aggregation(layout, 48) : make_native_aggregation(layout);
    aggregation->add({one(1), {}}, {1, 0, 0.25});
    aggregation->add({one(5), {}}, {2, 0, 0.75});
    EXPECT_ERROR(aggregation->add({one(std::nan("")), {}}, {3, 0, 1}), "client 3");
  }
}

}  // namespace
}  // namespace fsllm
