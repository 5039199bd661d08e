// SPDX-License-Identifier: Apache-2.0
#include "fsllm/offsite/prune.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace fsllm::test {
namespace {

TEST(Pruned, LeavesTheLargestWeightsOfEachOutput) {
  auto const weight = at::tensor({4.0F, -1.0F, 3.0F, 2.0F, -0.1F, 0.4F, -0.3F, 0.2F}).view({2, 4});
  auto const half = at::tensor({4.0F, 0.0F, 3.0F, 0.0F, 0.0F, 0.4F, -0.3F, 0.0F}).view({2, 4});
  EXPECT_TRUE(at::equal(pruned(weight, 0.5, 1), half));
  EXPECT_TRUE(at::equal(pruned(weight.t(), 0.5, 0), half.t()));
  EXPECT_TRUE(at::equal(pruned(weight.to(at::kBFloat16), 0.5, 1), half.to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(pruned(weight, 0, 1), weight));
  // int(0.7 · 4) = 2
  EXPECT_TRUE(at::equal(pruned(weight, 0.7, 1), half));
}

TEST(Pruned, TakesTheFirstOfEqualWeights) {
  auto const weight = at::tensor({1.0F, -1.0F, 1.0F, -1.0F}).view({1, 4});
  EXPECT_TRUE(at::equal(pruned(weight, 0.5, 1), at::tensor({0.0F, 0.0F, 1.0F, -1.0F}).view({1, 4})));
}

TEST(AbsentWeights, AreThoseOfSparseMatrices) {
  TensorMap const middle{{"h.1.weight", at::eye(2)}, {"h.1.bias", at::zeros({2})}};
  EmulatorPlan plan;
  EXPECT_TRUE(absent_weights(middle, plan).empty());
  plan.sparsity = 0.5;
  auto const absent = absent_weights(middle, plan);
  ASSERT_EQ(absent.size(), 1U);
  EXPECT_TRUE(at::equal(absent.at("h.1.weight"), at::eye(2).eq(0)));
}

}  // namespace
}  // namespace fsllm::test
