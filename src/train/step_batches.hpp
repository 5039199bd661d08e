// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <future>
#include <span>
#include <vector>

#include "fsllm/data/batch.hpp"
#include "fsllm/train/trainer.hpp"

namespace fsllm {

/// The batches of one step after another; with dataloader.num_workers the next ones are made in the
/// background. `ranks` share each forward pass, which has that many times train.micro_batch_size rows. Steps
/// from `steps` on go on in the same order; pairs stay together, with what the reference makes of their rows.
/// `data`, `config` and `reference` must outlive the object.
class StepBatches {
 public:
  StepBatches(TokenSplit const& data, TrainConfig const& config, ClientRound const& which, int64_t steps,
              std::span<double const> reference = {}, int ranks = 1);
  /// The rows of one step, cut into forward passes.
  std::vector<Batch> at(int64_t step);

 private:
  std::vector<Batch> make(int64_t step);

  TokenSplit const& data_;
  TrainConfig const& config_;
  std::span<double const> reference_;
  BatchOrder order_;
  int64_t steps_, micro_, ahead_of_ = -1;
  std::future<std::vector<Batch>> ahead_;  ///< last, so that it has ended before the rest goes
};

}  // namespace fsllm
