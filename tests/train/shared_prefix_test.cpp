// SPDX-License-Identifier: Apache-2.0
// What rows of a pass begin with, computed once (dataloader.packing: shared_prefix): the same losses and
// gradients.
#include "shared_prefix.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>

#include "fixture.hpp"
#include "fsllm/train/loss.hpp"
#include "support.hpp"
#include "training.hpp"

namespace fsllm {
namespace {

/// Rows that begin with `common` tokens alike, and differ in the next one; the last tokens are scored, of the
/// first row from inside of what is shared.
TokenSplit rows_behind(int common, std::vector<int> const& own) {
  TokenSplit split;
  for (size_t row = 0; row < own.size(); ++row) {
    std::vector<int32_t> ids;
    std::vector<uint8_t> target;
    for (int i = 0; i < common + own[row]; ++i) {
      ids.push_back(i < common ? 3 + 7 * i % 80 : 4 + static_cast<int32_t>((row + 1) * 11 + 5 * i) % 90);
      target.push_back(i >= (row == 0 ? common - 3 : common));
    }
    split.append(ids, target, -1);
  }
  return split;
}

Batch batch_of(TokenSplit const& split, Packing packing) {
  Batch batch;
  batch.packing = packing;
  for (int64_t row = 0; row < split.rows(); ++row) append_row(batch, split, row);
  return batch;
}

TEST(SharedPrefix, IsTheLongestThatLeavesEachRowAToken) {
  auto const split = rows_behind(12, {5, 1, 9});
  auto const batch = batch_of(split, Packing::shared_prefix);
  auto const shared = share_prefix(batch, {});
  ASSERT_TRUE(shared);
  EXPECT_EQ(shared->offsets, (std::vector<int64_t>{0, 12, 17, 18, 27}));
  ASSERT_EQ(shared->target_positions.size(), batch.target_positions.size());
  for (size_t i = 0; i < batch.target_positions.size(); ++i)  // the same token stands there
    EXPECT_EQ(shared->ids[static_cast<size_t>(shared->target_positions[i])],
              batch.ids[static_cast<size_t>(batch.target_positions[i])])
        << i;
  auto const same = share_prefix(batch_of(rows_behind(12, {0, 0}), Packing::shared_prefix), {});
  ASSERT_TRUE(same);
  EXPECT_EQ(same->offsets, (std::vector<int64_t>{0, 11, 12, 13})) << "rows that are the same";
  EXPECT_FALSE(share_prefix(batch_of(rows_behind(5, {4, 4}), Packing::shared_prefix), {})) << "too little";
  EXPECT_FALSE(share_prefix(batch_of(rows_behind(12, {4}), Packing::shared_prefix), {})) << "one row";
}

class Families : public testing::TestWithParam<std::string> {};

TEST_P(Families, HaveTheSameLossesAndGradients) {
  auto const model = load_model(test::load_reference(GetParam()).dir);
  model->make_trainable("fp32");
  auto const split = rows_behind(10, {6, 1, 6, 9});
  std::vector<TensorMap> gradients;
  std::vector<double> losses;
  std::vector<at::Tensor> of_rows;
  for (auto const packing : {Packing::pack, Packing::shared_prefix}) {
    auto const batch = batch_of(split, packing);
    auto const parameters = model->parameters();
    for (auto const& [name, tensor] : parameters) tensor.mutable_grad().reset();
    auto const loss = summed_loss(*model, batch);
    loss.backward();
    losses.push_back(loss.item<double>());
    of_rows.push_back(row_losses(*model, batch).detach());
    auto& own = gradients.emplace_back();
    for (auto const& [name, tensor] : parameters)
      if (tensor.grad().defined()) own.emplace(name, tensor.grad().clone());
  }
  EXPECT_NEAR(losses[1], losses[0], 2e-6 * losses[0]);
  EXPECT_LT((of_rows[1] - of_rows[0]).abs().max().item<double>(), 2e-5);
  ASSERT_EQ(gradients[0].size(), gradients[1].size());
  double largest = 0;  // some gradients are nought but for rounding
  for (auto const& [name, gradient] : gradients[0])
    largest = std::max(largest, gradient.abs().max().item<double>());
  for (auto const& [name, gradient] : gradients[0]) {
    auto const off = (gradients[1].at(name) - gradient).abs().max().item<double>();
    EXPECT_LE(off, 3e-5 * std::max(gradient.abs().max().item<double>(), 0.01 * largest)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(SharedPrefix, Families, testing::ValuesIn(test::reference_names()),
                         [](auto const& instance) { return instance.param; });

}  // namespace
}  // namespace fsllm
