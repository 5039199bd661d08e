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
    auto const yaml =
        "federate: {method: " + row.name + "}\nfedopt: {optimizer: {type: SGD, lr: 0.5, momentum: 0.9}}";
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
