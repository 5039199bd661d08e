// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/tensor_map.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

TensorMap two_tensors() {
  return {{"a", at::ones({2, 3})}, {"b", at::full({4}, 2.0)}};
}

TEST(TensorMapTest, CloneIsDeepAndDetached) {
  auto original = two_tensors();
  original.at("a").requires_grad_(true);
  auto const copy = clone(original);
  EXPECT_FALSE(copy.at("a").requires_grad());
  EXPECT_NE(copy.at("a").data_ptr(), original.at("a").data_ptr());
  EXPECT_TRUE(test::tensors_near(copy.at("a"), at::ones({2, 3}), 0));
}

TEST(TensorMapTest, SubtractNameByName) {
  auto const difference = subtract({{"a", at::full({2}, 5.0)}}, {{"a", at::full({2}, 3.0)}});
  EXPECT_TRUE(test::tensors_near(difference.at("a"), at::full({2}, 2.0), 0));
}

TEST(TensorMapTest, CopyValuesKeepsStorageAndGradients) {
  auto to = two_tensors();
  to.at("a").requires_grad_(true);
  void const* const storage = to.at("a").data_ptr();
  copy_values(to, {{"a", at::zeros({2, 3})}, {"b", at::zeros({4})}});
  EXPECT_EQ(to.at("a").data_ptr(), storage);
  EXPECT_TRUE(to.at("a").requires_grad());
  EXPECT_TRUE(test::tensors_near(to.at("b"), at::zeros({4}), 0));
}

TEST(TensorMapTest, NormAndCounts) {
  auto const map = two_tensors();  // 6 ones and 4 twos
  EXPECT_DOUBLE_EQ(l2_norm(map), std::sqrt(6.0 + 16.0));
  EXPECT_EQ(num_parameters(map), 10);
  EXPECT_EQ(num_bytes(map), 40);
  EXPECT_EQ(num_bytes({{"h", at::zeros({3}, at::kHalf)}}), 6);
  EXPECT_EQ(l2_norm({}), 0);
  EXPECT_EQ(num_parameters({}), 0);
}

TEST(TensorMapTest, NormOfHalfDoesNotOverflow) {
  EXPECT_NEAR(l2_norm({{"h", at::full({1000}, 60000.0, at::kHalf)}}), 60000 * std::sqrt(1000.0), 1000);
}

TEST(TensorMapTest, FingerprintSeesLayoutNotValues) {
  auto const base = layout_fingerprint(two_tensors());
  EXPECT_EQ(base, layout_fingerprint({{"a", at::zeros({2, 3})}, {"b", at::zeros({4})}}));
  EXPECT_NE(base, layout_fingerprint({{"a", at::zeros({3, 2})}, {"b", at::zeros({4})}}));
  EXPECT_NE(base, layout_fingerprint({{"a", at::zeros({2, 3}, at::kHalf)}, {"b", at::zeros({4})}}));
  EXPECT_NE(base, layout_fingerprint({{"a", at::zeros({2, 3})}, {"c", at::zeros({4})}}));
  EXPECT_NE(base, layout_fingerprint({{"a", at::zeros({2, 3})}}));
  EXPECT_NE(base, layout_fingerprint(two_tensors(), 1));
}

TEST(TensorMapTest, LayoutErrorsNameTheTensor) {
  auto const map = two_tensors();
  EXPECT_NO_THROW(check_same_layout(map, clone(map), "x"));
  EXPECT_ERROR(check_same_layout(map, {{"a", at::zeros({2, 3})}}, "adapter"), "adapter: tensor b is missing");
  EXPECT_ERROR(check_same_layout({{"a", at::zeros({2, 3})}}, map, "adapter"),
               "adapter: tensor b is not expected");
  EXPECT_ERROR(check_same_layout(map, {{"a", at::zeros({2, 4})}, {"b", at::zeros({4})}}, "adapter"),
               "tensor a is [2, 4] Float ([2, 3] Float expected)");
  EXPECT_ERROR(
      check_same_layout(map, {{"a", at::zeros({2, 3})}, {"b", at::zeros({4}, at::kDouble)}}, "adapter"),
      "tensor b is [4] Double ([4] Float expected)");
  EXPECT_ERROR(subtract(map, {}), "missing");
  auto changed = clone(map);
  EXPECT_ERROR(copy_values(changed, {}), "missing");
}

}  // namespace
}  // namespace fsllm
