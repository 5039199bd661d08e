// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/matrix_gradients.hpp"

#include <ATen/ATen.h>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/train/loss.hpp"
#include "support.hpp"
#include "training.hpp"

namespace fsllm {
namespace {

Batch batch_of(std::vector<int> const& lengths) {
  auto const split = rows_of_lengths(lengths);
  Batch batch;
  for (int64_t row = 0; row < split.rows(); ++row) append_row(batch, split, row);
  return batch;
}

/// Those of full-parameter training, in a model with frozen weights under an adapter, which stays; over two
/// passes; of the head, tied or not, and of GPT-2's transposed matrices too.
TEST(MatrixGradients, AreThoseOfFullTraining) {
  std::map<std::string, std::vector<std::string>> const modules{
      {"llama", {"model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "lm_head"}},
      {"gpt2", {"transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"}}};
  std::vector<Batch> const batches{batch_of({9, 4, 12}), batch_of({7, 5, 16})};
  int64_t const targets = batches[0].num_targets() + batches[1].num_targets();
  for (auto const& [family, names] : modules) {
    auto const full = load_model(test::source_file("tests/reference/" + family), {});
    full->make_trainable("fp32");
    for (auto const& batch : batches) summed_loss(*full, batch).div(static_cast<double>(targets)).backward();
    auto const frozen = load_model(test::source_file("tests/reference/" + family), {});
    auto const peft = make_peft(PeftConfig{.method = "lora"}, *frozen, 0);
    auto* const before = module_of(*frozen, names.front()).adapter.get();
    auto const gradients = matrix_gradients(*frozen, names, {batches, 0, targets, {}});
    EXPECT_EQ(module_of(*frozen, names.front()).adapter.get(), before);
    ASSERT_EQ(gradients.size(), names.size());
    for (auto const& name : names) {
      auto const& linear = module_of(*full, name);
      auto const expected = linear.conv1d ? linear.weight.grad().t() : linear.weight.grad();
      EXPECT_TRUE(
          test::tensors_near(gradients.at(name), expected, 2e-6 * expected.abs().max().item<double>()))
          << name;
    }
  }
}

TEST(MatrixGradients, FirstUpdatesAreThoseOfTheOptimiser) {
  auto const gradient = at::tensor({3e-4, -2e-6, 0.0, 1e-8}, at::kFloat).view({2, 2});
  OptimizerConfig config;
  config.lr = 0.5;
  config.type = "SGD";
  config.weight_decay = 0.1;
  EXPECT_TRUE(test::tensors_near(first_update(config, gradient), gradient.mul(-0.5), 1e-10));
  for (auto const* type : {"Adam", "AdamW"}) {
    config.type = type;
    EXPECT_TRUE(test::tensors_near(first_update(config, gradient),
                                   gradient.div(gradient.abs().add(1e-8)).mul(-0.5), 1e-6))
        << type;
  }
  EXPECT_TRUE(gradient.equal(at::tensor({3e-4, -2e-6, 0.0, 1e-8}, at::kFloat).view({2, 2})));
}

}  // namespace
}  // namespace fsllm
