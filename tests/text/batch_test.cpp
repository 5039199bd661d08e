// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/batch.hpp"

#include <algorithm>
#include <set>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using Rows = std::vector<int64_t>;

TEST(Batch, RowsLieEndToEndAndTargetsPointAtTheirPredecessor) {
  TokenSplit split;
  split.append({5, 6, 7, 8}, {0, 0, 1, 1}, -1);
  split.append({9, 10}, {1, 1}, -1);
  split.append({11}, {0}, -1);
  Batch batch;
  append_row(batch, split, 1);
  append_row(batch, split, 0);
  append_row(batch, split, 2);
  EXPECT_EQ(batch.ids, (Rows{9, 10, 5, 6, 7, 8, 11}));
  EXPECT_EQ(batch.offsets, (Rows{0, 2, 6, 7}));
  EXPECT_EQ(batch.target_positions, (Rows{0, 3, 4})) << "the first token of a row is never a target";
  EXPECT_EQ(batch.target_ids, (Rows{10, 7, 8}));
  EXPECT_EQ(batch.num_rows(), 3);
  EXPECT_EQ(batch.num_tokens(), 7);
  EXPECT_EQ(batch.num_targets(), 3);
}

Rows epoch_of(BatchOrder& order, int64_t epoch) {
  Rows all;
  for (int64_t step = 0; step < order.steps_per_epoch(); ++step) {
    auto const rows = order.rows_of_step(epoch * order.steps_per_epoch() + step);
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

TEST(BatchOrder, EveryEpochIsAPermutationOfItsOwn) {
  BatchOrder order(23, {5, true, false}, 1, 2, 3, 10);
  EXPECT_EQ(order.steps_per_epoch(), 5);
  EXPECT_EQ(order.rows_of_step(4).size(), 3U);
  Rows sorted(23);
  for (int64_t i = 0; i < 23; ++i) sorted[static_cast<size_t>(i)] = i;
  auto const first = epoch_of(order, 0), second = epoch_of(order, 1);
  EXPECT_NE(first, second);
  EXPECT_TRUE(std::is_permutation(first.begin(), first.end(), sorted.begin(), sorted.end()));
  EXPECT_TRUE(std::is_permutation(second.begin(), second.end(), sorted.begin(), sorted.end()));
  EXPECT_EQ(epoch_of(order, 0), first) << "going back gives the same order";
}

TEST(BatchOrder, DependsOnSeedClientAndRoundOnly) {
  auto const first_epoch = [](uint64_t seed, int64_t client, int64_t round, int64_t steps) {
    BatchOrder order(50, {50, true, false}, seed, client, round, steps);
    return order.rows_of_step(0);
  };
  EXPECT_EQ(first_epoch(1, 2, 3, 1), first_epoch(1, 2, 3, 99));
  std::set<Rows> const different{first_epoch(1, 2, 3, 1), first_epoch(2, 2, 3, 1), first_epoch(1, 3, 3, 1),
                                 first_epoch(1, 2, 4, 1), first_epoch(1, 3, 2, 1)};
  EXPECT_EQ(different.size(), 5U);
}

TEST(BatchOrder, DropLastLeavesOutTheSmallerBatch) {
  BatchOrder order(23, {5, true, true}, 1, 2, 3, 10);
  EXPECT_EQ(order.steps_per_epoch(), 4);
  EXPECT_EQ(epoch_of(order, 0).size(), 20U);
  BatchOrder few(3, {5, true, true}, 1, 2, 3, 10);
  EXPECT_EQ(few.steps_per_epoch(), 1) << "fewer rows than a batch are still trained on";
  EXPECT_EQ(few.rows_of_step(7).size(), 3U);
}

TEST(BatchOrder, WithoutShuffleRowsGoOnFromRoundToRound) {
  BatchConfig const config{4, false, false};
  EXPECT_EQ(BatchOrder(6, config, 1, 1, 0, 2).rows_of_step(0), (Rows{0, 1, 2, 3}));
  EXPECT_EQ(BatchOrder(6, config, 1, 1, 0, 2).rows_of_step(1), (Rows{4, 5, 0, 1}));
  EXPECT_EQ(BatchOrder(6, config, 1, 1, 1, 2).rows_of_step(0), (Rows{2, 3, 4, 5}));
  EXPECT_EQ(BatchOrder(3, config, 9, 9, 5, 2).rows_of_step(1), (Rows{0, 1, 2})) << "no row twice in a batch";
}

TEST(BatchOrder, AClientWithoutRowsIsAnError) {
  EXPECT_ERROR(BatchOrder(0, {}, 1, 17, 0, 1), "client 17 has no training rows");
}

TEST(BatchConfig, ReadsItsKeys) {
  auto config = Config::parse("dataloader: {batch_size: 3, shuffle: False, drop_last: True}", "run.yaml");
  auto const batch = load_batch_config(config);
  EXPECT_EQ(batch.batch_size, 3);
  EXPECT_FALSE(batch.shuffle);
  EXPECT_TRUE(batch.drop_last);
  auto wrong = Config::parse("dataloader: {batch_size: 0}", "run.yaml");
  EXPECT_ERROR(load_batch_config(wrong), "dataloader.batch_size = 0 (must be at least 1)");
}

}  // namespace
}  // namespace fsllm
