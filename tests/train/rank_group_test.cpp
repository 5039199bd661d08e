// SPDX-License-Identifier: Apache-2.0
// The ranks of the world as one group against one rank alone.
#include "fsllm/train/rank_group.hpp"

#include <ATen/ATen.h>

#include <bit>

#include "fsllm/core/error.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/train/local_training.hpp"
#include "fsllm/train/loss.hpp"
#include "support.hpp"
#include "training.hpp"

namespace fsllm {
namespace {

auto const kData = rows_of_lengths({9, 4, 12, 7, 5, 16, 3, 11});

/// With a small eps AdamW would make steps of the rounding in gradients that are zero (GPT-2's bias of keys).
std::string const kAdamW =
    "train: {local_update_steps: 5, micro_batch_size: 1, optimizer: {type: AdamW, lr: 0.01, weight_decay: "
    "0.1, eps: 0.001}}\n"
    "grad: {grad_clip: 0.5, grad_accum_count: 2}\ndataloader: {batch_size: 3}\n";
/// Fewer rows than ranks.
std::string const kSmallBatch =
    "train: {local_update_steps: 4, optimizer: {type: SGD, lr: 0.05, momentum: 0.9}}\n"
    "dataloader: {batch_size: 2}\n";

struct Outcome {
  TensorMap weights;  ///< whole, on rank 0
  double loss_sum = 0, evaluated = 0;
  TensorMap parts;
};

std::unique_ptr<CausalLM> load(std::string const& family) {
  return load_model(test::source_file("tests/reference/" + family), {});
}

Outcome alone(std::string const& family, std::string const& yaml) {
  auto const model = load(family);
  model->make_trainable("fp32");
  auto parameters = model->parameters();
  auto const result = train_client(*model, parameters, kData, config_of(yaml), {1, 2, 0, 1});
  return {clone(parameters), result.loss_sum, evaluate_split(*model, kData).sum, {}};
}

Outcome in_group(std::string const& family, std::string const& yaml, int64_t stage) {
  auto const collective = make_host_collective(Communicator::world());
  auto const model = load(family);
  if (stage == 0) model->make_trainable("fp32");
  RankGroup group(*collective, *model, {.ranks = Communicator::world().size(), .stage = stage},
                  {.trained = true});
  auto parameters = stage == 0 ? model->parameters() : group.parameters();
  auto const config = config_of(yaml);
  LocalTraining training(*model, parameters, kData, config, {1, 2, 0, 1}, {}, {}, &group);
  while (!training.done()) training.step();
  Outcome outcome{{}, training.result().loss_sum, evaluate_split(*model, kData, {}, 2048, &group).sum, {}};
  outcome.parts = clone(parameters);
  for (auto const& [name, tensor] : parameters)
    outcome.weights.emplace(name, stage == 0 ? tensor.detach() : group.gathered(name, tensor));
  return outcome;
}

double largest_difference(TensorMap const& a, TensorMap const& b) {
  double worst = 0;
  for (auto const& [name, tensor] : a)
    worst = std::max(worst, tensor.sub(b.at(name)).abs().max().item<double>());
  return worst;
}

TEST(RankGroup, EveryStageTrainsAsOneRankDoes) {
  int const rank = Communicator::world().rank();
  for (auto const* family : {"llama", "gpt2", "gemma2", "falcon"})
    for (auto const& yaml : {kAdamW, kSmallBatch}) {
      auto const one = alone(family, yaml);
      Outcome second;
      for (int64_t stage = 0; stage <= 3; ++stage) {
        auto const many = in_group(family, yaml, stage);
        EXPECT_NEAR(many.loss_sum, one.loss_sum, 1e-5 * one.loss_sum) << family << " stage " << stage;
        EXPECT_NEAR(many.evaluated, one.evaluated, 1e-5 * one.evaluated) << family << " stage " << stage;
        EXPECT_LE(rank == 0 ? largest_difference(one.weights, many.weights) : 0, 1e-5) << family << stage;
        // Stages differ in what is kept where, not in a sum.
        if (stage == 2) second = many;
        EXPECT_EQ(stage == 3 ? largest_difference(second.parts, many.parts) : 0, 0) << family;
      }
    }
}

TEST(RankGroup, PartsArePaddedWithZerosAndCoverTheWhole) {
  auto const world = Communicator::world();
  auto const collective = make_host_collective(world);
  auto const model = load("llama"), whole = load("llama");
  RankGroup const group(*collective, *model, {.ranks = world.size(), .stage = 3}, {.trained = true});
  int64_t all = 0;
  for (auto const& [name, part] : group.parameters()) {
    auto const values = whole->parameters().at(name);
    EXPECT_EQ(part.numel(), partition_size(values.numel(), world.size()));
    auto const sum = sum_in_order(world, part.detach().to(at::kDouble).sum().item<double>());
    EXPECT_NEAR(sum, values.to(at::kDouble).sum().item<double>(), 1e-9) << name;
    auto const back = group.gathered(name, part);
    EXPECT_TRUE(world.rank() != 0 || at::equal(back, values)) << name;
    all += part.numel();
  }
  EXPECT_LE(all * world.size(), num_parameters(whole->parameters()) * 11 / 10);
}

/// An adapter over blocks that are partitioned, and over a whole model.
TEST(RankGroup, AdapterOverPartitionedBlocks) {
  auto const world = Communicator::world();
  auto yaml = Config::parse(
      "llm: {adapter: {use: True, args: [{adapter_method: lora, r: 4, lora_alpha: 8, lora_dropout: 0.1}]}}",
      "test");
  auto const peft_config = load_peft_config(yaml);
  auto const train = [&](RankGroup* group, CausalLM& model) {
    auto const peft = make_peft(peft_config, model, 7);
    auto parameters = peft->state();
    auto const config = config_of(kAdamW);
    LocalTraining training(model, parameters, kData, config, {1, 2, 0, 1}, {}, {}, group);
    while (!training.done()) training.step();
    return Outcome{clone(parameters), training.result().loss_sum, 0, {}};
  };
  auto const single = load("llama");
  auto const one = train(nullptr, *single);
  for (int64_t stage : {0, 3}) {
    auto const collective = make_host_collective(world);
    auto const model = load("llama");
    RankGroup group(*collective, *model, {.ranks = world.size(), .stage = stage}, {});
    auto const many = train(&group, *model);
    EXPECT_NEAR(many.loss_sum, one.loss_sum, 1e-5 * one.loss_sum);
    EXPECT_LE(largest_difference(one.weights, many.weights), 1e-5);
    EXPECT_TRUE(world.all_equal(static_cast<uint64_t>(std::bit_cast<int64_t>(l2_norm(many.weights)))));
  }
}

/// What a rank has computes in halves, what is trained is fp32.
TEST(RankGroup, HalvesTravelAndCompute) {
  auto const world = Communicator::world();
  auto const collective = make_host_collective(world);
  auto const train = [&](int64_t stage) {
    auto const model = load_model(test::source_file("tests/reference/llama"), {.compute_dtype = "bf16"});
    RankGroup group(*collective, *model, {.ranks = world.size(), .stage = stage},
                    {.trained = true, .compute_type = "bf16"});
    auto parameters = group.parameters();
    auto const config = config_of(kAdamW);
    LocalTraining training(*model, parameters, kData, config, {1, 2, 0, 1}, {}, {}, &group);
    while (!training.done()) training.step();
    for (auto const& [name, tensor] : parameters) EXPECT_EQ(tensor.scalar_type(), at::kFloat);
    for (auto const& [name, tensor] : model->parameters()) EXPECT_EQ(tensor.scalar_type(), at::kBFloat16);
    return Outcome{clone(parameters), training.result().loss_sum, 0, {}};
  };
  auto const wide = alone("llama", kAdamW);
  auto const second = train(2), third = train(3);
  EXPECT_NEAR(second.loss_sum, wide.loss_sum, 0.02 * wide.loss_sum);
  EXPECT_EQ(second.loss_sum, third.loss_sum);
  EXPECT_EQ(largest_difference(second.weights, third.weights), 0);
}

}  // namespace
}  // namespace fsllm
