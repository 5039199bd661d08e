// SPDX-License-Identifier: Apache-2.0
#include "step_batches.hpp"

#include <algorithm>

#include "order.hpp"

namespace fsllm {
namespace {

/// Tokens of each sample: a row, or the two of a pair.
std::vector<int64_t> sample_lengths(TokenSplit const& data) {
  auto const rows = row_lengths(data);
  std::vector<int64_t> lengths(static_cast<size_t>(data.samples()));
  for (size_t row = 0; row < rows.size(); ++row)
    lengths[row / static_cast<size_t>(data.rows_a_sample())] += rows[row];
  return lengths;
}

}  // namespace

StepBatches::StepBatches(TokenSplit const& data, TrainConfig const& config, ClientRound const& which,
                         int64_t steps, std::span<double const> reference, int ranks)
    : data_(data),
      config_(config),
      reference_(reference),
      order_(order_of(config, data.samples(), which,
                      config.batch.group_by_length ? sample_lengths(data) : std::vector<int64_t>())),
      steps_(steps),
      micro_(config.micro_batch_size * ranks) {}

std::vector<Batch> StepBatches::make(int64_t step) {
  std::vector<Batch> batches;
  int64_t rows_before = 0;
  int64_t const first = step * config_.accumulation, planned = planned_batches(config_, data_.samples());
  int64_t const end = first + config_.accumulation;
  for (int64_t at = first; at < (first < planned ? std::min(end, planned) : end); ++at) {
    auto const samples = order_.rows_of_step(at);
    auto const count = static_cast<int64_t>(samples.size()), a_sample = data_.rows_a_sample();
    int64_t const micro = micro_ > 0 ? micro_ : count;
    for (int64_t begin = 0; begin < count; begin += micro) {
      auto& batch = batches.emplace_back();
      batch.packing = config_.batch.packing;
      batch.first_row = rows_before;
      for (int64_t i = begin * a_sample; i < std::min(begin + micro, count) * a_sample; ++i) {
        auto const row = samples[static_cast<size_t>(i / a_sample)] * a_sample + i % a_sample;
        append_row(batch, data_, row);
        if (!reference_.empty()) batch.reference.push_back(reference_[static_cast<size_t>(row)]);
      }
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
