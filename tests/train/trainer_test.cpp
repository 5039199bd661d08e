// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/trainer.hpp"

#include <ATen/ATen.h>

#include "fsllm/core/error.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/train/loss.hpp"
#include "support.hpp"
#include "training.hpp"

namespace fsllm {
namespace {

std::unique_ptr<CausalLM> tiny_model() {
  auto model = load_model(test::source_file("tests/reference/llama"), {});
  model->make_trainable("fp32");
  return model;
}

struct Trained {
  TensorMap weights;
  TrainResult result;
};

Trained train(TrainConfig const& config, TokenSplit const& data, ClientRound const& which = {}) {
  auto const model = tiny_model();
  auto parameters = model->parameters();
  auto const result = train_client(*model, parameters, data, config, which);
  return {clone(parameters), result};
}

double largest_difference(TensorMap const& a, TensorMap const& b) {
  double worst = 0;
  for (auto const& [name, tensor] : a)
    worst = std::max(worst, (tensor - b.at(name)).abs().max().item<double>());
  return worst;
}

auto const kData = rows_of_lengths({9, 4, 12, 7, 5, 16});

TEST(Trainer, AccumulationAndMicroBatchesWeighByTokens) {
  auto const whole =
      train(config_of("train: {optimizer: {lr: 0.05}}\ndataloader: {batch_size: 6, shuffle: False}"), kData);
  auto const accumulated = train(config_of("train: {optimizer: {lr: 0.05}}\ngrad: {grad_accum_count: "
                                           "3}\ndataloader: {batch_size: 2, shuffle: False}"),
                                 kData);
  auto const micro = train(
      config_of(
          "train: {optimizer: {lr: 0.05}, micro_batch_size: 4}\ndataloader: {batch_size: 6, shuffle: False}"),
      kData);
  EXPECT_EQ(whole.result.targets, accumulated.result.targets);
  EXPECT_NEAR(whole.result.loss_sum, accumulated.result.loss_sum, 1e-4 * whole.result.loss_sum);
  EXPECT_LE(largest_difference(whole.weights, accumulated.weights), 1e-6);
  EXPECT_LE(largest_difference(whole.weights, micro.weights), 1e-6);
}

TEST(Trainer, EpochsVisitEveryRow) {
  auto const once = train(config_of("train: {batch_or_epoch: epoch, local_update_steps: 2, optimizer: {lr: "
                                    "0.01}}\ndataloader: {batch_size: 4}"),
                          kData);
  EXPECT_EQ(once.result.samples, 12);
  EXPECT_EQ(once.result.steps, 4);
  EXPECT_EQ(once.result.tokens, 2 * static_cast<int64_t>(kData.tokens.size()));
}

TEST(Trainer, IsAFunctionOfSeedClientAndRound) {
  auto const config =
      config_of("train: {local_update_steps: 3, optimizer: {lr: 0.05}}\ndataloader: {batch_size: 2}");
  auto const first = train(config, kData, {1, 2, 3, 10});
  EXPECT_EQ(largest_difference(first.weights, train(config, kData, {1, 2, 3, 10}).weights), 0);
  EXPECT_GT(largest_difference(first.weights, train(config, kData, {1, 2, 4, 10}).weights), 0);
  EXPECT_GT(largest_difference(first.weights, train(config, kData, {1, 3, 3, 10}).weights), 0);
  EXPECT_GT(largest_difference(first.weights, train(config, kData, {2, 2, 3, 10}).weights), 0);
}

TEST(Trainer, BatchesMadeInTheBackgroundAreTheSame) {
  std::string const yaml =
      "train: {local_update_steps: 7, optimizer: {lr: 0.05}, micro_batch_size: 1}\ngrad: {grad_accum_count: "
      "2}\ndataloader: {batch_size: 2, num_workers: ";
  auto const between = train(config_of(yaml + "0}"), kData), behind = train(config_of(yaml + "1}"), kData);
  EXPECT_EQ(largest_difference(between.weights, behind.weights), 0);
  EXPECT_EQ(between.result.tokens, behind.result.tokens);
}

TEST(Trainer, PaddedAttentionLearnsTheSameUpToRounding) {
  std::string const yaml =
      "train: {local_update_steps: 5, optimizer: {lr: 0.05}}\ndataloader: {batch_size: 4, packing: ";
  auto const packed = train(config_of(yaml + "pack}"), kData),
             padded = train(config_of(yaml + "none}"), kData);
  EXPECT_EQ(packed.result.tokens, padded.result.tokens) << "padding is not counted";
  EXPECT_NEAR(packed.result.loss_sum, padded.result.loss_sum, 1e-5 * packed.result.loss_sum);
  EXPECT_LE(largest_difference(packed.weights, padded.weights), 1e-6);
}

TEST(Trainer, GroupsRowsByTheirLength) {
  auto const data = rows_of_lengths({4, 16, 4, 16, 4, 16, 4, 16});
  auto const config =
      config_of("train: {batch_or_epoch: epoch}\ndataloader: {batch_size: 4, group_by_length: True}");
  std::vector<int64_t> tokens;
  auto const model = tiny_model();
  auto parameters = model->parameters();
  train_client(*model, parameters, data, config, {}, [&](int64_t count, double) { tokens.push_back(count); });
  std::sort(tokens.begin(), tokens.end());
  EXPECT_EQ(tokens, (std::vector<int64_t>{16, 64}));
}

TEST(Trainer, ClippingBoundsTheStep) {
  auto const config =
      config_of("train: {optimizer: {lr: 1.0}}\ngrad: {grad_clip: 0.25}\ndataloader: {batch_size: 6}");
  auto const before = clone(tiny_model()->parameters());
  auto const trained = train(config, kData);
  EXPECT_NEAR(l2_norm(subtract(trained.weights, before)), 0.25, 1e-4);
}

TEST(Trainer, SkipsStepsThatAreNotFinite) {
  auto const model = tiny_model();
  auto parameters = model->parameters();
  at::Tensor weight = parameters.begin()->second.detach();
  weight.flatten()[0].fill_(std::numeric_limits<float>::infinity());
  auto const before = clone(parameters);
  auto const result =
      train_client(*model, parameters, kData,
                   config_of("train: {local_update_steps: 2}\ndataloader: {batch_size: 6}"), {});
  EXPECT_EQ(result.skipped_steps, 2);
  EXPECT_EQ(result.targets, 0);
  for (auto const& [name, tensor] : before)
    EXPECT_TRUE(at::equal(tensor, parameters.at(name).detach())) << name;
}

/// Three steps on one batch are three steps whose batch is always the same; then comes the next batch.
TEST(Trainer, TakesSeveralStepsOnABatch) {
  std::string const yaml =
      "train: {local_update_steps: 1, optimizer: {lr: 0.05, momentum: 0.5}}\n"
      "dataloader: {batch_size: 6, shuffle: False}";
  auto thrice = config_of(yaml);
  auto one_batch = thrice;
  thrice.steps_per_batch = 3;
  one_batch.local_update_steps = 3;
  auto const repeated = train(thrice, kData);
  EXPECT_EQ(largest_difference(repeated.weights, train(one_batch, kData).weights), 0);
  EXPECT_EQ(repeated.result.steps, 3);
  for (int64_t const workers : {0, 1}) {
    auto twice = config_of("train: {local_update_steps: 2}\ndataloader: {batch_size: 2, shuffle: False}");
    twice.steps_per_batch = 2;
    twice.batch.num_workers = workers;
    std::vector<int64_t> tokens;
    auto const model = tiny_model();
    auto parameters = model->parameters();
    train_client(*model, parameters, kData, twice, {},
                 [&](int64_t count, double) { tokens.push_back(count); });
    EXPECT_EQ(tokens, (std::vector<int64_t>{13, 13, 19, 19}));
  }
}

/// The rows of kData's places; a token without a finite embedding stands in row `bad`.
TEST(Trainer, TakesOtherRowsWhereALossIsNotFinite) {
  constexpr int32_t kBad = 95;
  auto const rows = [](std::vector<size_t> const& places, size_t bad) {
    TokenSplit split;
    for (size_t const row : places) {
      std::vector<int32_t> ids(kData.tokens.begin() + kData.offsets[row],
                               kData.tokens.begin() + kData.offsets[row + 1]);
      std::vector<uint8_t> target(ids.size(), 1);
      if (row == bad) ids[1] = kBad;
      split.append(ids, target, -1);
    }
    return split;
  };
  auto const train_on = [&](TokenSplit const& data, std::string const& more) {
    auto const model = tiny_model();
    auto parameters = model->parameters();
    parameters.at("model.embed_tokens.weight").detach()[kBad].fill_(std::nan(""));
    auto const config = config_of(
        "train: {local_update_steps: 3, optimizer: {lr: 0.05}}\n"
        "dataloader: {batch_size: 1, shuffle: False, num_workers: 1}\n" +
        more);
    auto const result = train_client(*model, parameters, data, config, {});
    parameters.at("model.embed_tokens.weight").detach()[kBad].zero_();
    return Trained{clone(parameters), result};
  };
  std::string const retry = "llm: {retry_on_nan_loss: True}";
  auto const redrawn = train_on(rows({0, 1, 2, 3}, 1), retry);
  EXPECT_EQ(redrawn.result.redrawn, 1);
  EXPECT_EQ(redrawn.result.skipped_steps, 0);
  EXPECT_EQ(redrawn.result.samples, 4);
  EXPECT_EQ(largest_difference(redrawn.weights, train_on(rows({0, 3, 2}, 9), "").weights), 0)
      << "row 3 comes after those of the round";
  auto const skipped = train_on(rows({0, 1, 2, 3}, 1), "");
  EXPECT_EQ(skipped.result.skipped_steps, 1);
  EXPECT_EQ(skipped.result.redrawn, 0);
  auto const hopeless = train_on(rows({1}, 1), retry);
  EXPECT_EQ(hopeless.result.skipped_steps, 3);
  EXPECT_EQ(hopeless.result.redrawn, 30);
}

TEST(Trainer, EmptyClientIsAnError) {
  EXPECT_ERROR(train(config_of("dataloader: {batch_size: 2}"), TokenSplit{}, {0, 7, 0, 1}),
               "client 7 has no training rows");
}

/// Loss and adapter gradients of all rows of `data`, `rows_a_batch` rows at a time.
std::pair<double, TensorMap> loss_and_gradients(TokenSplit const& data, int64_t rows_a_batch) {
  auto const model = load_model(test::source_file("tests/reference/llama"), {});
  PeftConfig config;
  config.method = "lora";
  auto const peft = make_peft(config, *model, 5);
  double sum = 0;
  for (int64_t row = 0; row < data.rows();) {
    Batch batch;
    for (int64_t i = 0; i < rows_a_batch && row < data.rows(); ++i) append_row(batch, data, row++);
    auto const loss = summed_loss(*model, batch);
    sum += loss.item<double>();
    loss.backward();
  }
  TensorMap gradients;
  for (auto const& [name, tensor] : peft->state()) gradients.emplace(name, tensor.grad().clone());
  return {sum, gradients};
}

TEST(Loss, ManyTargetsAreTheSumOfFew) {
  auto const data = rows_of_lengths(std::vector<int>(25, 19));  // 425 targets: several chunks
  auto const [whole, gradients] = loss_and_gradients(data, 25);
  auto const [parts, expected] = loss_and_gradients(data, 5);
  EXPECT_NEAR(whole, parts, 1e-5 * parts);
  EXPECT_GT(l2_norm(expected), 1);
  EXPECT_LE(l2_norm(subtract(gradients, expected)), 1e-5 * l2_norm(expected));
}

/// Σ weight · loss and its gradient, with a head that learns and with one that rests; and the losses of rows.
TEST(Loss, CountsRowsByTheirWeights) {
  auto const data = rows_of_lengths({9, 4, 160, 7});
  std::vector<double> const weights{0.25, 2, 0.5, 0};
  for (bool const learning_head : {true, false}) {
    auto const model =
        learning_head ? tiny_model() : load_model(test::source_file("tests/reference/llama"), {});
    std::unique_ptr<Peft> peft;
    if (!learning_head) {
      peft = make_peft({.method = "lora"}, *model, 1);
      for (auto& [name, tensor] : peft->state()) tensor.detach().add_(0.01);
    }
    auto const parameters = learning_head ? model->parameters() : peft->state();
    auto const gradients_of = [&](at::Tensor const& loss) {
      loss.backward();
      TensorMap gradients;
      for (auto const& [name, tensor] : parameters) {
        gradients.emplace(name, tensor.grad().clone());
        tensor.mutable_grad().reset();
      }
      return gradients;
    };
    Batch all;
    double expected = 0;
    at::Tensor sum;
    auto const rows = row_losses(*model, data);
    EXPECT_EQ(targets_by_row(data), (std::vector<int64_t>{7, 2, 158, 5}));
    for (int64_t row = 0; row < 4; ++row) {
      append_row(all, data, row);
      Batch one;
      append_row(one, data, row);
      auto const loss = summed_loss(*model, one);
      auto const value = loss.item<double>(), weight = weights[static_cast<size_t>(row)];
      EXPECT_NEAR(rows[static_cast<size_t>(row)], value, 1e-5 * value);
      expected += weight * value;
      sum = sum.defined() ? sum.add(loss, weight) : loss.mul(weight);
    }
    auto const wanted = gradients_of(sum);
    EXPECT_EQ(targets_by_row(all), targets_by_row(data));
    auto const weighted = row_losses(*model, all).mul(at::tensor(weights, at::kDouble)).sum();
    EXPECT_NEAR(weighted.item<double>(), expected, 1e-5 * expected);
    auto const gradients = gradients_of(weighted);
    EXPECT_GT(l2_norm(wanted), 1e-3);
    EXPECT_LE(l2_norm(subtract(gradients, wanted)), 1e-5 * l2_norm(wanted)) << learning_head;
  }
}

TEST(Loss, OfASplitDoesNotDependOnBatching) {
  auto const model = load_model(test::source_file("tests/reference/llama"), {});
  auto const all = evaluate_split(*model, kData, {}, 4096), one = evaluate_split(*model, kData, {}, 1);
  EXPECT_EQ(all.targets, one.targets);
  EXPECT_EQ(all.rows, 6);
  EXPECT_NEAR(all.sum, one.sum, 1e-5 * all.sum);
  EXPECT_NEAR(evaluate_split(*model, kData, {.packing = Packing::pad}).sum, one.sum, 1e-5 * all.sum);
}

class QuantizedLora : public testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(QuantizedLora, LearnsAsOnTheValuesOfItsCodes) {
  auto const type = std::get<0>(GetParam()), more = std::get<1>(GetParam());
  auto const source = test::source_file("tests/reference/llama");
  auto const config = config_of(
      "train: {local_update_steps: 10, optimizer: {type: AdamW, lr: 0.01}}\ndataloader: {batch_size: 2}");
  test::TempDir dir;
  auto const losses = [&](std::filesystem::path const& folder, std::string const& storage) {
    auto const model = load_model(folder, {.storage_dtype = storage});
    auto yaml = Config::parse(
        "llm: {adapter: {use: True, args: [{r: 4, target_modules: all-linear" + more + "}]}}", "");
    auto const peft = make_peft(load_peft_config(yaml), *model, 3);
    auto parameters = peft->state();
    std::vector<double> each;
    train_client(*model, parameters, kData, config, {}, [&](int64_t, double loss) { each.push_back(loss); });
    return each;
  };
  save_model(dir / "plain", *load_model(source, {.storage_dtype = type}), source, "fp32");
  auto const quantized = losses(source, type), plain = losses(dir / "plain", "fp32");
  ASSERT_EQ(quantized.size(), 10U);
  for (size_t step = 0; step < 10; ++step) EXPECT_NEAR(quantized[step], plain[step], 1e-5) << type << step;
  EXPECT_LT(quantized.back(), quantized.front() - 0.1);
}

INSTANTIATE_TEST_SUITE_P(Trainer, QuantizedLora,
                         testing::Combine(testing::Values("nf4", "int8"),
                                          testing::Values("", ", use_dora: True, lora_dropout: 0.1")));

}  // namespace
}  // namespace fsllm
