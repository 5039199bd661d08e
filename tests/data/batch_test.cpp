// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/batch.hpp"

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

/// Lengths of 1000 rows, most of them short.
Rows some_lengths() {
  Rows lengths;
  for (int64_t row = 0; row < 1000; ++row) lengths.push_back(3 + row * row % 97 * (row % 7));
  return lengths;
}

TEST(BatchOrder, GroupsOfSimilarLengthAreStillAPermutation) {
  auto const lengths = some_lengths();
  auto const padding = [&](bool group) {
    BatchOrder order(999, {.batch_size = 8, .group_by_length = group}, 1, 2, 3, 10,
                     {lengths.begin(), lengths.end() - 1});
    Rows all;
    int64_t padded = 0, tokens = 0;
    for (int64_t step = 0; step < order.steps_per_epoch(); ++step) {
      auto const rows = order.rows_of_step(step);
      EXPECT_EQ(rows.size(), step + 1 < order.steps_per_epoch() ? 8U : 7U);
      all.insert(all.end(), rows.begin(), rows.end());
      int64_t longest = 0;
      for (auto const row : rows) {
        longest = std::max(longest, lengths[static_cast<size_t>(row)]);
        tokens += lengths[static_cast<size_t>(row)];
      }
      padded += longest * static_cast<int64_t>(rows.size());
    }
    std::sort(all.begin(), all.end());
    for (int64_t row = 0; row < 999; ++row) EXPECT_EQ(all[static_cast<size_t>(row)], row);
    return static_cast<double>(padded - tokens) / static_cast<double>(padded);
  };
  EXPECT_GT(padding(false), 0.5);
  EXPECT_LT(padding(true), 0.1);
}

TEST(BatchOrder, TheFirstStepsOfGroupedRoundsAreAsLongAsOthers) {
  auto const lengths = some_lengths();
  double mean = 0, first = 0;
  for (auto const length : lengths) mean += static_cast<double>(length) / 1000;
  for (int64_t round = 0; round < 400; ++round) {
    BatchOrder order(1000, {.batch_size = 4, .group_by_length = true}, 7, 1, round, 2, lengths);
    for (auto const row : order.rows_of_step(0))
      first += static_cast<double>(lengths[static_cast<size_t>(row)]) / 1600;
  }
  EXPECT_NEAR(first, mean, 0.15 * mean) << "longest first would give five times the mean";
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
  EXPECT_EQ(batch.packing, Packing::pack);
  auto more = Config::parse("dataloader: {packing: none, group_by_length: True, num_workers: 2}", "run.yaml");
  auto const grouped = load_batch_config(more);
  EXPECT_EQ(grouped.packing, Packing::pad);
  EXPECT_TRUE(grouped.group_by_length);
  EXPECT_EQ(grouped.num_workers, 2);
  auto sharing = Config::parse("dataloader: {packing: shared_prefix}", "run.yaml");
  EXPECT_EQ(load_batch_config(sharing).packing, Packing::shared_prefix);
  auto unshuffled = Config::parse("dataloader: {group_by_length: True, shuffle: False}", "run.yaml");
  EXPECT_ERROR(load_batch_config(unshuffled),
               "dataloader.group_by_length = true (dataloader.shuffle is False");
  auto wrong = Config::parse("dataloader: {batch_size: 0}", "run.yaml");
  EXPECT_ERROR(load_batch_config(wrong), "dataloader.batch_size = 0 (must be at least 1)");
}

}  // namespace
}  // namespace fsllm
