// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/loss_scale.hpp"

#include <ATen/ops/equal.h>

#include <algorithm>
#include <cmath>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/train/local_training.hpp"
#include "support.hpp"
#include "training.hpp"

namespace fsllm {
namespace {

/// torch.amp.GradScaler(init_scale=16, growth_interval=3) after each of these steps.
TEST(LossScale, MovesAsGradScaler) {
  LossScale scale({.initial_power = 4, .window = 3}, /*half=*/true);
  std::vector<double> values;
  for (bool const overflow : {true, false, false, true, false, false, false, false, false, false, true})
    scale.update(overflow), values.push_back(scale.value());
  EXPECT_EQ(values, (std::vector<double>{8, 8, 8, 4, 4, 4, 8, 8, 8, 16, 8}));
  for (int i = 0; i < 5; ++i) scale.update(true);
  EXPECT_EQ(scale.value(), 1);
  scale.update(false);
  TensorMap state;
  scale.save(state);
  LossScale other({.initial_power = 9, .window = 3}, true);
  other.load(state);
  other.update(false);
  EXPECT_EQ(other.value(), 1);
  other.update(false);
  EXPECT_EQ(other.value(), 2) << "the third step in a row";
}

/// DeepSpeed's DynamicLossScaler(init_scale=256, scale_window=3, delayed_shift=2) after each of these steps.
TEST(LossScale, MovesAsDeepSpeedsUnderHysteresis) {
  LossScaleConfig const config{.initial_power = 8, .window = 3, .hysteresis = 2};
  LossScale scale(config, /*half=*/true);
  std::vector<double> values;
  for (bool const overflow : {true,  true, true, false, false, false, true,  false, false, false, true,
                              false, true, true, false, false, false, false, false, false, true,  false}) {
    scale.update(overflow), values.push_back(scale.value());
    TensorMap state;  // as between the rounds of a client that keeps its optimiser
    scale.save(state);
    scale = LossScale(config, true);
    scale.load(state);
  }
  EXPECT_EQ(values, (std::vector<double>{256, 128, 64, 64, 64, 128, 128, 128, 128, 256, 256,
                                         256, 128, 64, 64, 64, 128, 128, 128, 256, 256, 256}));
}

TEST(LossScale, IsForFp16OrWhatIsSet) {
  EXPECT_FALSE(LossScale({}, false).in_use());
  EXPECT_EQ(LossScale({}, true).value(), 65536);
  LossScale fixed({.fixed = 3}, true);
  fixed.update(true);
  EXPECT_EQ(fixed.value(), 3);
  TensorMap state;
  fixed.save(state);
  EXPECT_TRUE(state.empty());
}

struct Trained {
  std::vector<double> losses;
  TensorMap weights;
  TrainResult result;
};

/// So many steps of a LoRA in `type`; with `cut` another object goes on from the state in the middle.
Trained train(std::string const& type, std::string const& yaml, std::string const& adapter = "r: 4",
              bool cut = false) {
  auto const model =
      load_model(test::source_file("tests/reference/llama"), {.storage_dtype = type, .compute_dtype = type});
  auto peft_yaml = Config::parse("llm: {adapter: {use: True, args: [{" + adapter + "}]}}", "");
  auto const peft = adapter.empty() ? nullptr : make_peft(load_peft_config(peft_yaml), *model, 3);
  if (!peft) model->make_trainable("fp32");
  auto parameters = peft ? peft->state() : model->parameters();
  auto const config = config_of(yaml);
  auto const data = rows_of_lengths({9, 4, 12, 7, 5, 16});
  Trained trained;
  auto training = std::make_unique<LocalTraining>(*model, parameters, data, config, ClientRound{});
  for (int64_t step = 0; !training->done(); ++step) {
    if (cut && step == 3) {
      auto state = training->state();
      state.optimizer = clone(state.optimizer);
      training = std::make_unique<LocalTraining>(*model, parameters, data, config, ClientRound{});
      training->load_state(state);
    }
    auto const result = training->step();
    if (result.taken) trained.losses.push_back(result.loss);
  }
  trained.weights = clone(parameters);
  trained.result = training->result();
  return trained;
}

bool same_bits(TensorMap const& a, TensorMap const& b) {
  return std::ranges::all_of(a,
                             [&](auto const& entry) { return at::equal(entry.second, b.at(entry.first)); });
}

/// Multiplying by a power of two rounds nothing: clipping and the optimiser see the very gradients.
TEST(LossScale, LeavesFp32Alone) {
  std::string const yaml =
      "grad: {grad_clip: 0.5, grad_accum_count: 2}\ndataloader: {batch_size: 2}\n"
      "train: {local_update_steps: 4, micro_batch_size: 1, optimizer: {type: AdamW, lr: 0.01}";
  for (std::string const adapter : {"", "r: 4, lora_dropout: 0.1"}) {
    auto const plain = train("fp32", yaml + "}", adapter),
               scaled = train("fp32", yaml + ", loss_scale: 1024}", adapter);
    EXPECT_EQ(scaled.losses, plain.losses);
    EXPECT_TRUE(same_bits(scaled.weights, plain.weights));
    EXPECT_EQ(scaled.result.loss_scale, 1024);
    EXPECT_EQ(plain.result.loss_scale, 0);
  }
}

TEST(LossScale, TrainsInFp16AsInFp32) {
  std::string const yaml =
      "dataloader: {batch_size: 3}\ntrain: {local_update_steps: 60, initial_scale_power: 12, optimizer: "
      "{type: AdamW, lr: 0.005}}";
  for (std::string const adapter :
       {"", "r: 4, lora_dropout: 0.1", "r: 4, target_modules: [q_proj, lm_head]"}) {
    auto const half = train("fp16", yaml, adapter), full = train("fp32", yaml, adapter);
    ASSERT_EQ(half.losses.size(), full.losses.size());
    EXPECT_LT(full.losses.back(), full.losses.front() - 0.3);
    EXPECT_NEAR(half.losses.back(), full.losses.back(), 0.005 * full.losses.back()) << adapter;
    EXPECT_EQ(half.result.overflow_steps, 0);
    EXPECT_EQ(half.result.loss_scale, 4096);
  }
}

TEST(LossScale, OverflowsAreSkippedAndCounted) {
  std::string const yaml =
      "dataloader: {batch_size: 3}\n"
      "train: {local_update_steps: 20, initial_scale_power: 32, optimizer: {type: AdamW, lr: 0.01}}";
  auto const trained = train("fp16", yaml);
  EXPECT_GT(trained.result.overflow_steps, 3);
  EXPECT_LT(trained.result.overflow_steps, 18);
  EXPECT_EQ(trained.result.skipped_steps, 0);
  EXPECT_EQ(trained.result.loss_scale, std::exp2(32 - static_cast<double>(trained.result.overflow_steps)));
  EXPECT_EQ(std::ssize(trained.losses), 20 - trained.result.overflow_steps);
  EXPECT_LT(trained.losses.back(), trained.losses.front());
  auto const cut = train("fp16", yaml, "r: 4", /*cut=*/true);
  EXPECT_EQ(cut.losses, trained.losses);
  EXPECT_TRUE(same_bits(cut.weights, trained.weights));
}

}  // namespace
}  // namespace fsllm
