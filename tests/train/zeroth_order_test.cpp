// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/zeroth_order.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/train/local_training.hpp"
#include "support.hpp"
#include "training.hpp"

namespace fsllm {
namespace {

at::Tensor normals(int64_t count, std::string const& name, PerturbationKey const& key) {
  auto const z = at::zeros({count}, at::kDouble);
  add_normal(z, 1, name, key);
  return z;
}

/// Box–Muller of the documented stream's words, wherever memory is cut; moments of N(0, 1) within five
/// standard errors.
TEST(ZerothOrder, DirectionsAreNormalAndFollowFromTheirKey) {
  constexpr int64_t kCount = 200'001;
  PerturbationKey const key{3, 2, 1, 4};
  auto const z = normals(kCount, "w", key);
  Philox random(derive_seed(3, Purpose::perturbation, 2, 1, 4), Purpose::perturbation, hash_of("w"));
  auto const values = z.accessor<double, 1>();
  for (int64_t i = 0; i < kCount; i += 2) {
    double const u = (random.next_u32() + 0.5) * 0x1p-32, v = (random.next_u32() + 0.5) * 0x1p-32;
    ASSERT_EQ(values[i],
              static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v)));
  }
  auto const n = static_cast<double>(kCount);
  EXPECT_LT(std::abs(z.mean().item<double>()), 5 / std::sqrt(n));
  EXPECT_LT(std::abs(z.square().mean().item<double>() - 1), 5 * std::sqrt(2 / n));
  EXPECT_LT(std::abs(z.pow(4).mean().item<double>() - 3), 5 * std::sqrt(96 / n));
  EXPECT_LT(std::abs(z.narrow(0, 1, kCount - 1).mul(z.narrow(0, 0, kCount - 1)).mean().item<double>()),
            5 / std::sqrt(n));
  EXPECT_TRUE(normals(7, "w", key).equal(z.narrow(0, 0, 7))) << "a prefix, whatever the size";
  for (auto const& other :
       {normals(kCount, "v", key), normals(kCount, "w", {4, 2, 1, 4}), normals(kCount, "w", {3, 1, 1, 4}),
        normals(kCount, "w", {3, 2, 0, 4}), normals(kCount, "w", {3, 2, 1, 5})})
    EXPECT_LT(std::abs(other.mul(z).mean().item<double>()), 5 / std::sqrt(n));
}

/// On 1/2 Σ a (w - b)² the slope is exactly the gradient along z, whatever ε, and the mean of slope · z over
/// many z is the gradient, within five standard errors.
TEST(ZerothOrder, TheMeanStepIsTheGradient) {
  TensorMap const parameters{{"u", at::tensor({1.0, -2.0, 0.5}, at::kDouble)},
                             {"w", at::tensor({3.0, -0.25}, at::kDouble).view({2, 1})}};
  TensorMap const curvature{{"u", at::tensor({1.0, 0.5, 2.0}, at::kDouble)},
                            {"w", at::tensor({0.1, 4.0}, at::kDouble).view({2, 1})}};
  auto const before = clone(parameters);
  auto const loss = [&] {
    double sum = 0;
    for (auto const& [name, w] : parameters)
      sum += w.sub(0.75).square().mul(curvature.at(name)).sum().item<double>() / 2;
    return sum;
  };
  TensorMap gradient;
  for (auto const& [name, w] : parameters) gradient.emplace(name, w.sub(0.75).mul(curvature.at(name)));
  constexpr int kDraws = 20'000;
  std::map<std::string, at::Tensor> sum, squares;
  for (int draw = 0; draw < kDraws; ++draw) {
    PerturbationKey const key{1, 1, 0, draw};
    auto const [plus, minus] = losses_around(parameters, key, 0.125, loss);
    double const slope = (plus - minus) / 0.25;
    double expected = 0;
    for (auto const& [name, g] : gradient) {
      auto const z = normals(g.numel(), name, key).view(g.sizes());
      expected += g.mul(z).sum().item<double>();
      auto const estimate = z.mul(slope);
      sum[name] = sum[name].defined() ? sum[name].add(estimate) : estimate;
      squares[name] = squares[name].defined() ? squares[name].add(estimate.square()) : estimate.square();
    }
    ASSERT_NEAR(slope, expected, 1e-12 * (1 + std::abs(expected)));
  }
  for (auto const& [name, g] : gradient) {
    EXPECT_TRUE(parameters.at(name).equal(before.at(name))) << "nothing stays of ±εz";
    auto const mean = sum[name].div(kDraws);
    auto const error = squares[name].div(kDraws).sub(mean.square()).div(kDraws).sqrt();
    EXPECT_TRUE(mean.sub(g).abs().lt(error.mul(5)).all().item<bool>()) << name << mean << g;
  }
}

/// w after T steps is w - Σ η ρ z to rounding; a schedule is in η; micro-batches change next to nothing; no
/// gradient is left, or was asked for.
TEST(ZerothOrder, TrainingMovesAlongItsDirections) {
  auto const data = rows_of_lengths({5, 8, 11, 14, 17, 20});
  std::string const yaml =
      "train: {local_update_steps: 5, optimizer: {type: MeZO, lr: 0.001}, scheduler: "
      "{type: linear}, zo_eps: 0.01";
  std::vector<ZerothOrderMove> first;
  for (auto const* more : {"}\n", ", micro_batch_size: 1}\n"}) {
    auto const model = load_model(test::source_file("tests/reference/llama"), {});
    model->make_trainable("fp32");
    auto parameters = model->parameters();
    auto const start = clone(parameters);
    auto const config = config_of(yaml + more + "dataloader: {batch_size: 3}\n");
    LocalTraining training(*model, parameters, data, config, {5, 7, 1, 4});
    while (!training.done()) EXPECT_TRUE(training.step().taken);
    auto const& moves = training.moves();
    ASSERT_EQ(moves.size(), 5U);
    for (size_t i = 0; i < moves.size(); ++i) {
      EXPECT_NEAR(moves[i].rate, 0.001 * (20.0 - 5 - static_cast<double>(i)) / 20, 1e-12);
      EXPECT_NE(moves[i].slope, 0);
      if (!first.empty()) {
        EXPECT_NEAR(moves[i].slope, first[i].slope, 1e-3 * std::abs(first[i].slope) + 1e-3);
      }
    }
    first = moves;
    for (auto const& [name, w] : parameters) {
      EXPECT_FALSE(w.grad().defined()) << name;
      auto expected = start.at(name).to(at::kDouble);
      for (size_t i = 0; i < moves.size(); ++i)
        add_normal(expected, -moves[i].rate * moves[i].slope, name, {5, 7, 1, static_cast<int64_t>(i)});
      EXPECT_TRUE(test::tensors_near(w.detach().to(at::kDouble), expected, 1e-6)) << name;
      EXPECT_FALSE(w.detach().equal(start.at(name))) << name;
    }
  }
}

TEST(ZerothOrder, ALossThatIsNotFiniteIsSkipped) {
  auto const data = rows_of_lengths({5, 8, 11, 14, 17, 20});
  auto const model = load_model(test::source_file("tests/reference/llama"), {});
  model->make_trainable("fp32");
  auto parameters = model->parameters();
  parameters.begin()->second.detach().fill_(std::numeric_limits<float>::quiet_NaN());
  auto start = clone(parameters);
  auto const config = config_of("train: {optimizer: {type: MeZO}}\n");
  LocalTraining training(*model, parameters, data, config, {});
  EXPECT_FALSE(training.step().taken);
  EXPECT_EQ(training.result().skipped_steps, 1);
  EXPECT_EQ(training.moves().at(0).rate, 0);
  start.erase(parameters.begin()->first);
  for (auto const& [name, w] : start) EXPECT_TRUE(parameters.at(name).detach().equal(w)) << name;
}

/// FS-LLM's trainer means the same, whatever its optimizer.type.
TEST(ZerothOrder, SettingsThatNeedGradientsAreRefused) {
  EXPECT_TRUE(config_of("trainer: {type: mezotrainer}\ntrain: {optimizer: {type: AdamW, lr: 1e-5}}\n")
                  .zeroth_order());
  EXPECT_FALSE(config_of("trainer: {type: llmtrainer}\n").zeroth_order());
  EXPECT_EQ(config_of("train: {optimizer: {type: MeZO}}").zo_eps, 1e-3);
  auto const mezo = [](std::string const& more) { return "train: {optimizer: {type: MeZO" + more; };
  EXPECT_ERROR(config_of(mezo(", momentum: 0.9}}")), "MeZO has no such argument");
  EXPECT_ERROR(config_of(mezo(", betas: [0.9, 0.95]}}")), "MeZO has no such argument");
  EXPECT_ERROR(config_of(mezo(", weight_decay: 0.1}}")), "which has no gradients");
  EXPECT_ERROR(config_of(mezo("}}\ngrad: {grad_clip: 1}")), "grad.grad_clip");
  EXPECT_ERROR(config_of(mezo("}}\nllm: {retry_on_nan_loss: True}")), "llm.retry_on_nan_loss");
  EXPECT_ERROR(config_of(mezo("}, zo_eps: 0}")), "train.zo_eps");
}

}  // namespace
}  // namespace fsllm
