// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/batch.hpp"

#include <algorithm>
#include <numeric>
#include <span>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {

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
}

BatchConfig load_batch_config(Config& config) {
  BatchConfig batch;
  batch.batch_size = config.get("dataloader.batch_size", batch.batch_size, "Rows a step", at_least(1));
  batch.shuffle =
      config.get("dataloader.shuffle", batch.shuffle, "A fresh order of the training rows each epoch");
  batch.drop_last =
      config.get("dataloader.drop_last", batch.drop_last, "Leave out the last, smaller batch of an epoch");
  return batch;
}

BatchOrder::BatchOrder(int64_t rows, BatchConfig const& config, uint64_t seed, int64_t client, int64_t round,
                       int64_t steps_per_round)
    : rows_(rows),
      batch_(std::min(config.batch_size, rows)),
      client_(client),
      round_(round),
      steps_per_round_(steps_per_round),
      config_(config),
      seed_(seed) {
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
  }
  return permutation_;
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
