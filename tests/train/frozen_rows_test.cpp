// SPDX-License-Identifier: Apache-2.0
// Blocks below what learns, computed once a row: the same losses and gradients, and bits that do not depend
// on the batch.
#include "fsllm/model/frozen_rows.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>

#include "fixture.hpp"
#include "fsllm/train/loss.hpp"
#include "support.hpp"
#include "training.hpp"

namespace fsllm {
namespace {

TokenSplit some_rows() {
  TokenSplit split;
  for (int row = 0; row < 4; ++row) {
    std::vector<int32_t> ids;
    std::vector<uint8_t> target;
    for (int i = 0; i < 6 + 3 * row; ++i) {
      ids.push_back(4 + (11 * row + 5 * i) % 90);
      target.push_back(i >= 3);
    }
    split.append(ids, target, -1);
  }
  return split;
}

Batch batch_of(TokenSplit const& split, std::vector<int64_t> const& rows) {
  Batch batch;
  for (int64_t const row : rows) append_row(batch, split, row);
  return batch;
}

struct Learning {
  std::unique_ptr<CausalLM> model;
  TensorMap parameters;  ///< of the last block
};

Learning last_block_of(std::string const& name) {
  Learning l{load_model(test::load_reference(name).dir), {}};
  auto const names = l.model->block_parameters().back();
  for (auto const& parameter : names) {
    auto const own = l.model->parameters().at(parameter).to(at::kFloat).clone().set_requires_grad(true);
    l.model->set_parameter(parameter, own);
    l.parameters.emplace(parameter, own);
  }
  return l;
}

struct Step {
  double loss = 0;
  at::Tensor rows;
  TensorMap gradients;
};

Step step_of(Learning& l, Batch const& batch) {
  for (auto const& [name, tensor] : l.parameters) tensor.mutable_grad().reset();
  Step step;
  auto const loss = summed_loss(*l.model, batch);
  loss.backward();
  step.loss = loss.item<double>();
  step.rows = row_losses(*l.model, batch).detach();
  for (auto const& [name, tensor] : l.parameters) step.gradients.emplace(name, tensor.grad().clone());
  return step;
}

class FrozenFamilies : public testing::TestWithParam<std::string> {};

TEST_P(FrozenFamilies, HaveTheSameLossesAndGradients) {
  auto l = last_block_of(GetParam());
  if (l.model->block_parameters().size() == 1) GTEST_SKIP() << "a model of one block";
  auto const batch = batch_of(some_rows(), {0, 1, 2, 3});
  auto const expected = step_of(l, batch);
  ASSERT_EQ(frozen_blocks(*l.model), std::ssize(l.model->block_parameters()) - 1);
  keep_frozen_rows(*l.model, 1 << 20);
  auto const first = step_of(l, batch);
  int64_t const kept = frozen_row_bytes(*l.model);
  EXPECT_GT(kept, 0);
  auto const again = step_of(l, batch);
  EXPECT_EQ(frozen_row_bytes(*l.model), kept) << "rows that were there";
  EXPECT_EQ(again.loss, first.loss);
  EXPECT_NEAR(first.loss, expected.loss, 2e-6 * expected.loss);
  EXPECT_LT((first.rows - expected.rows).abs().max().item<double>(), 2e-5);
  double largest = 0;
  for (auto const& [name, gradient] : expected.gradients)
    largest = std::max(largest, gradient.abs().max().item<double>());
  for (auto const& [name, gradient] : expected.gradients) {
    EXPECT_TRUE(again.gradients.at(name).equal(first.gradients.at(name))) << name;
    EXPECT_LE((first.gradients.at(name) - gradient).abs().max().item<double>(),
              3e-5 * std::max(gradient.abs().max().item<double>(), 0.01 * largest))
        << name;
  }
}

INSTANTIATE_TEST_SUITE_P(FrozenRows, FrozenFamilies, testing::ValuesIn(test::reference_names()),
                         [](auto const& instance) { return instance.param; });

/// Where nothing fits, and in whatever company a row stands, it has the same bits behind the frozen blocks.
TEST(FrozenRows, TheLimitChangesNothing) {
  auto l = last_block_of("llama");
  auto const batch = batch_of(some_rows(), {3, 0, 2, 1});
  keep_frozen_rows(*l.model, 1 << 20);
  step_of(l, batch_of(some_rows(), {1, 2}));
  auto const roomy = step_of(l, batch);
  keep_frozen_rows(*l.model, 1);
  auto const tight = step_of(l, batch);
  EXPECT_EQ(frozen_row_bytes(*l.model), 0);
  EXPECT_EQ(tight.loss, roomy.loss);
  for (auto const& [name, gradient] : roomy.gradients)
    EXPECT_TRUE(tight.gradients.at(name).equal(gradient)) << name;
}

TEST(FrozenRows, AreForgottenWhenABlockBelowLearnsOrChanges) {
  auto l = last_block_of("llama");
  auto const batch = batch_of(some_rows(), {0, 1});
  keep_frozen_rows(*l.model, 1 << 20);
  double const before = step_of(l, batch).loss;
  auto const name = l.model->block_parameters().front().front();
  auto const value = l.model->parameters().at(name);
  l.model->set_parameter(name, value.to(at::kFloat) * 1.5);
  double const changed = step_of(l, batch).loss;
  EXPECT_NE(changed, before);
  l.model->set_parameter(name, (value.to(at::kFloat) * 1.5).set_requires_grad(true));
  EXPECT_EQ(frozen_blocks(*l.model), 0);
  EXPECT_NEAR(step_of(l, batch).loss, changed, 1e-5 * changed);
}

TEST(FrozenRows, NoBlockIsFrozenWhereAllLearn) {
  auto const model = load_model(test::load_reference("llama").dir);
  model->make_trainable("fp32");
  EXPECT_EQ(frozen_blocks(*model), 0);
}

}  // namespace
}  // namespace fsllm
