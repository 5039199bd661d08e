// SPDX-License-Identifier: Apache-2.0
#include "step_batches.hpp"

#include <algorithm>

#include "order.hpp"

namespace fsllm {

StepBatches::StepBatches(TokenSplit const& data, TrainConfig const& config, ClientRound const& which,
                         int64_t steps)
    : data_(data),
      config_(config),
      order_(order_of(config, data.rows(), which,
                      config.batch.group_by_length ? row_lengths(data) : std::vector<int64_t>())),
      steps_(steps) {}

std::vector<Batch> StepBatches::make(int64_t step) {
  std::vector<Batch> batches;
  int64_t rows_before = 0;
  int64_t const first = step * config_.accumulation, planned = planned_batches(config_, data_.rows());
  int64_t const end = first + config_.accumulation;
  for (int64_t at = first; at < (first < planned ? std::min(end, planned) : end); ++at) {
    auto const rows = order_.rows_of_step(at);
    auto const count = static_cast<int64_t>(rows.size());
    int64_t const micro = config_.micro_batch_size > 0 ? config_.micro_batch_size : count;
    for (int64_t begin = 0; begin < count; begin += micro) {
      auto& batch = batches.emplace_back();
      batch.packing = config_.batch.packing;
      batch.first_row = rows_before;
      for (int64_t i = begin; i < std::min(begin + micro, count); ++i) append_row(batch, data_, rows[i]);
      rows_before += batch.num_rows();
    }
  }
  return batches;
}

std::vector<Batch> StepBatches::at(int64_t step) {
  auto made = ahead_.valid() ? ahead_.get() : std::vector<Batch>();
  auto batches = step == ahead_of_ ? std::move(made) : make(step);
  ahead_of_ = step + 1;
  if (ahead_of_ < steps_ && config_.batch.num_workers > 0)
    ahead_ = std::async(std::launch::async, [this, next = ahead_of_] { return make(next); });
  else
    ahead_of_ = -1;
  return batches;
}

}  // namespace fsllm
