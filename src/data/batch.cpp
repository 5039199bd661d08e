// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/batch.hpp"

#include <algorithm>
#include <numeric>
#include <span>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {

namespace {

/// Batches that are sorted together: as transformers' LengthGroupedSampler.
constexpr int64_t kSortedBatches = 50;

void read_packing(Config& config, BatchConfig& batch) {
  auto const packing = config.get(
      "dataloader.packing", "pack",
      "How the rows of a forward pass meet in attention. pack: row by row (those of one length in one "
      "call), without padding; none: padded to the longest, in one call, which suits GPUs where rows "
      "are short and of similar length; shared_prefix: as pack, but the tokens that all rows of the pass "
      "begin "
      "with (the head of a prompt) are computed once, which needs a model and an adapter without dropout and "
      "without virtual tokens. The losses are the same.",
      one_of({"pack", "none", "shared_prefix"}));
  if (packing == "none") batch.packing = Packing::pad;
  if (packing == "shared_prefix") batch.packing = Packing::shared_prefix;
}

}  // namespace

std::vector<int64_t> row_lengths(TokenSplit const& split) {
  std::vector<int64_t> lengths;
  for (size_t row = 0; row + 1 < split.offsets.size(); ++row)
    lengths.push_back(split.offsets[row + 1] - split.offsets[row]);
  return lengths;
}

std::vector<int64_t> targets_by_row(TokenSplit const& split) {
  std::vector<int64_t> counts;
  for (size_t row = 0; row + 1 < split.offsets.size(); ++row)  // the first token of a row is never one
    counts.push_back(std::count(split.target.begin() + split.offsets[row] + 1,
                                split.target.begin() + split.offsets[row + 1], 1));
  return counts;
}

std::vector<int64_t> targets_by_row(Batch const& batch) {
  std::vector<int64_t> counts(static_cast<size_t>(batch.num_rows()));
  size_t row = 0;
  for (int64_t const position : batch.target_positions) {
    while (position >= batch.offsets[row + 1]) ++row;
    ++counts[row];
  }
  return counts;
}

Batch batch_rows(Batch const& batch, int64_t begin, int64_t end) {
  Batch part;
  part.packing = batch.packing;
  part.first_row = batch.first_row + begin;
  auto const first = batch.offsets[static_cast<size_t>(begin)],
             last = batch.offsets[static_cast<size_t>(end)];
  part.ids.assign(batch.ids.begin() + first, batch.ids.begin() + last);
  for (auto row = begin; row < end; ++row)
    part.offsets.push_back(batch.offsets[static_cast<size_t>(row) + 1] - first);
  part.rows.assign(batch.rows.begin() + begin, batch.rows.begin() + end);
  if (!batch.reference.empty())
    part.reference.assign(batch.reference.begin() + begin, batch.reference.begin() + end);
  for (size_t i = 0; i < batch.target_positions.size(); ++i) {
    if (batch.target_positions[i] < first || batch.target_positions[i] >= last) continue;
    part.target_positions.push_back(batch.target_positions[i] - first);
    part.target_ids.push_back(batch.target_ids[i]);
  }
  return part;
}

void append_row(Batch& batch, TokenSplit const& split, int64_t row) {
  auto const begin = split.offsets[static_cast<size_t>(row)],
             end = split.offsets[static_cast<size_t>(row) + 1];
  auto const base = batch.offsets.back();
  for (int64_t i = begin; i < end; ++i) {
    int64_t const id = split.tokens[static_cast<size_t>(i)];
    batch.ids.push_back(id);
    if (i == begin || split.target[static_cast<size_t>(i)] == 0) continue;
    batch.target_positions.push_back(base + i - begin - 1);
    batch.target_ids.push_back(id);
  }
  batch.offsets.push_back(base + end - begin);
  batch.rows.push_back(row);
}

BatchConfig load_batch_config(Config& config) {
  BatchConfig batch;
  batch.batch_size =
      config.get("dataloader.batch_size", batch.batch_size, "Rows (pairs) a step", at_least(1));
  batch.shuffle =
      config.get("dataloader.shuffle", batch.shuffle, "A fresh order of the training rows each epoch");
  batch.drop_last =
      config.get("dataloader.drop_last", batch.drop_last, "Leave out the last, smaller batch of an epoch");
  read_packing(config, batch);
  batch.group_by_length = config.get(
      "dataloader.group_by_length", batch.group_by_length,
      "Make training batches of rows of similar length, as transformers' Trainer does; needs shuffle.");
  FSLLM_CHECK(batch.shuffle || !batch.group_by_length,
              "{} = true (dataloader.shuffle is False, so rows keep their order). Turn one of them off.",
              config.where("dataloader.group_by_length"));
  batch.num_workers =
      config.get("dataloader.num_workers", batch.num_workers,
                 "0: batches are made between the steps; more: one thread makes the next step's meanwhile.",
                 at_least(0));
  return batch;
}

BatchOrder::BatchOrder(int64_t rows, BatchConfig const& config, uint64_t seed, int64_t client, int64_t round,
                       int64_t steps_per_round, std::vector<int64_t> lengths)
    : rows_(rows),
      batch_(std::min(config.batch_size, rows)),
      client_(client),
      round_(round),
      steps_per_round_(steps_per_round),
      config_(config),
      seed_(seed),
      lengths_(std::move(lengths)) {
  FSLLM_ASSERT(lengths_.empty() || static_cast<int64_t>(lengths_.size()) == rows);
  FSLLM_CHECK(
      rows > 0,
      "client {} has no training rows (its shard is empty, or no sample kept a target). Use fewer clients, "
      "or a larger llm.tok_len.",
      client);
}

int64_t BatchOrder::steps_per_epoch() const {
  return config_.drop_last ? rows_ / batch_ : (rows_ + batch_ - 1) / batch_;
}

std::vector<int64_t> const& BatchOrder::permutation(int64_t epoch) {
  if (epoch != cached_epoch_) {
    cached_epoch_ = epoch;
    permutation_.resize(static_cast<size_t>(rows_));
    std::iota(permutation_.begin(), permutation_.end(), 0);
    if (!config_.shuffle) return permutation_;
    Philox random(seed_, Purpose::batch_order, static_cast<uint64_t>(client_), static_cast<uint64_t>(round_),
                  static_cast<uint64_t>(epoch));
    random.shuffle(std::span(permutation_));
    if (config_.group_by_length && !lengths_.empty()) group_by_length(random);
  }
  return permutation_;
}

void BatchOrder::group_by_length(Philox& random) {
  int64_t const window = kSortedBatches * batch_;
  for (int64_t begin = 0; begin < rows_; begin += window)
    std::stable_sort(permutation_.begin() + begin, permutation_.begin() + std::min(begin + window, rows_),
                     [&](int64_t a, int64_t b) {
                       return lengths_[static_cast<size_t>(a)] > lengths_[static_cast<size_t>(b)];
                     });
  std::vector<int64_t> places(static_cast<size_t>(rows_ / batch_));
  std::iota(places.begin(), places.end(), 0);
  random.shuffle(std::span(places));
  auto const sorted = permutation_;
  auto out = permutation_.begin();
  for (int64_t const place : places) out = std::copy_n(sorted.begin() + place * batch_, batch_, out);
}

std::vector<int64_t> BatchOrder::rows_of_step(int64_t step) {
  if (!config_.shuffle && steps_per_round_ > 0) {
    std::vector<int64_t> rows(static_cast<size_t>(batch_));
    int64_t const first = (round_ * steps_per_round_ + step) * batch_;
    for (int64_t k = 0; k < batch_; ++k) rows[static_cast<size_t>(k)] = (first + k) % rows_;
    return rows;
  }
  auto const& order = permutation(step / steps_per_epoch());
  int64_t const first = step % steps_per_epoch() * batch_;
  int64_t const last = std::min(first + batch_, rows_);
  return {order.begin() + first, order.begin() + last};
}

}  // namespace fsllm
