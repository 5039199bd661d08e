// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/core/packing.hpp"
#include "fsllm/core/rng.hpp"
#include "fsllm/io/shard.hpp"

namespace fsllm {

/// Rows laid end to end without padding ("ragged"): attention runs row by row, everything else over all
/// tokens.
struct Batch {
  std::vector<int64_t> ids;               ///< [N]
  std::vector<int64_t> offsets{0};        ///< [rows + 1]
  std::vector<int64_t> rows;              ///< [rows], their numbers in the split
  std::vector<int64_t> target_positions;  ///< [M], index into ids of the token whose successor is scored
  std::vector<int64_t> target_ids;        ///< [M], that successor
  std::vector<double> reference;          ///< [rows] of pairs: what the reference makes of them; else empty
  int64_t first_row = 0;                  ///< rows of the optimiser step in the batches before this one
  Packing packing = Packing::pack;
  int64_t num_rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t num_tokens() const { return static_cast<int64_t>(ids.size()); }
  int64_t num_pairs() const { return static_cast<int64_t>(reference.size()) / 2; }
  int64_t num_targets() const { return static_cast<int64_t>(target_ids.size()); }
};

/// Tokens of each row.
std::vector<int64_t> row_lengths(TokenSplit const& split);

/// Scored tokens of each row.
std::vector<int64_t> targets_by_row(TokenSplit const& split);
std::vector<int64_t> targets_by_row(Batch const& batch);

/// Adds one row. The first token of a row is never a target (nothing predicts it).
void append_row(Batch& batch, TokenSplit const& split, int64_t row);

/// Rows [begin, end) of a batch.
Batch batch_rows(Batch const& batch, int64_t begin, int64_t end);

/// Keys `dataloader.*`.
struct BatchConfig {
  int64_t batch_size = 64;
  bool shuffle = true;
  bool drop_last = false;
  Packing packing = Packing::pack;
  bool group_by_length = false;  ///< rows of a batch have similar lengths
  int64_t num_workers = 0;       ///< above 0, batches are made in the background
};
BatchConfig load_batch_config(Config& config);

/// The order of training batches of one client in one round: a pure function of (seed, client, round).
/// shuffle: each epoch of the round is a fresh permutation; otherwise rows are taken in file order, going on
/// from round to round (row (round·steps + step)·batch_size + k modulo rows, for `steps` a round), or, with
/// `steps_per_round` 0 (rounds of whole epochs), from the first row in each epoch. group_by_length: the rows
/// of every 50 batches of the permutation are sorted by `lengths` (tokens a row), cut into batches, and all
/// whole batches of the epoch change places, so that the first steps of a round are as long as any others.
class BatchOrder {
 public:
  BatchOrder(int64_t rows, BatchConfig const& config, uint64_t seed, int64_t client, int64_t round,
             int64_t steps_per_round, std::vector<int64_t> lengths = {});
  /// Row indices of step `step` of this round (steps beyond one epoch go on with the next epoch).
  std::vector<int64_t> rows_of_step(int64_t step);
  int64_t steps_per_epoch() const;

 private:
  std::vector<int64_t> const& permutation(int64_t epoch);
  void group_by_length(Philox& random);
  int64_t rows_, batch_, client_, round_, steps_per_round_;
  BatchConfig config_;
  uint64_t seed_;
  int64_t cached_epoch_ = -1;
  std::vector<int64_t> lengths_, permutation_;
};

}  // namespace fsllm
