// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/optimizer.hpp"

#include <ATen/ATen.h>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

OptimizerConfig config_of(std::string const& yaml) {
  auto config = Config::parse(yaml, "test.yaml");
  auto const loaded = load_optimizer_config(config, "train.optimizer");
  config.finish();
  return loaded;
}

/// Two steps on the gradient 2w of w², from w = (1, -3).
at::Tensor two_steps(OptimizerConfig const& config, bool through_state) {
  TensorMap weights{{"w", at::tensor({1.0, -3.0}, at::kDouble)}};
  auto step = [&](Optimizer& optimizer) {
    weights.at("w").mutable_grad() = weights.at("w") * 2;
    optimizer.step();
  };
  Optimizer first(config, weights);
  step(first);
  if (!through_state) {
    step(first);
    return weights.at("w");
  }
  Optimizer second(config, weights);
  second.load_state(first.state());
  step(second);
  return weights.at("w");
}

// Every optimiser's two steps, computed with torch.optim of Python (lr 0.1 unless said).
TEST(Optimizer, AgreesWithTorchOptim) {
  struct Case {
    std::string yaml;
    std::vector<double> expected;
  };
  std::vector<Case> const cases{
      {"{type: SGD}", {0.64, -1.92}},
      {"{type: SGD, momentum: 0.9, nesterov: True}", {0.2224, -0.6671999999999997}},
      {"{type: Adam}", {0.8004122286917927, -2.800102707414789}},
      {"{type: AdamW}", {0.7985190271685215, -2.7942092931928864}},
      {"{type: Adagrad}", {0.8331035268450359, -2.830497790317731}},
      {"{type: RMSprop, momentum: 0.9, centered: True}", {-0.9044836830946621, -0.5293759234611465}},
  };
  for (auto const& [yaml, expected] : cases) {
    auto const result = two_steps(config_of("train: {optimizer: " + yaml + "}"), false);
    EXPECT_NEAR(result[0].item<double>(), expected[0], 1e-12) << yaml;
    EXPECT_NEAR(result[1].item<double>(), expected[1], 1e-12) << yaml;
  }
}

TEST(Optimizer, StateCarriesOn) {
  for (auto const& type : known_optimizers()) {
    bool const momentum = type == "SGD" || type == "RMSprop";
    auto const config =
        config_of("train: {optimizer: {type: " + type + (momentum ? ", momentum: 0.9" : "") + "}}");
    EXPECT_TRUE(at::equal(two_steps(config, false), two_steps(config, true))) << type;
  }
}

TEST(Optimizer, RejectsWhatItDoesNotHave) {
  EXPECT_ERROR(config_of("train:\n  optimizer:\n    type: SDG"), "test.yaml:3: train.optimizer.type = 'SDG'");
  EXPECT_ERROR(config_of("train: {optimizer: {type: AdamW, momentum: 0.9}}"), "AdamW has no such argument");
  EXPECT_ERROR(config_of("train: {optimizer: {type: SGD, betas: [0.9, 0.99]}}"), "SGD has no such argument");
  EXPECT_ERROR(config_of("train: {optimizer: {type: Adam, betas: [0.9]}}"), "two are needed");
  EXPECT_ERROR(config_of("train: {optimizer: {type: Adam, betas: [0.9, 1.5]}}"), "must be in [0, 1)");
  EXPECT_ERROR(config_of("train: {optimizer: {lr: fast}}"), "a number is needed");
  EXPECT_ERROR(config_of("train: {optimizer: {lr: -1}}"), "at least 0");
  EXPECT_ERROR(config_of("train: {optimizer: {nesterov: True}}"), "needs momentum");
}

}  // namespace
}  // namespace fsllm
