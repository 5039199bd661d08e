// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <mutex>
#include <utility>
#include <vector>

#include "fsllm/model/config.hpp"

namespace fsllm::detail {

/// Angles per position of each pair of dimensions, 1/theta^(2i/R) with the family's scaling (radians).
/// `long_row`: for rows longer than rope_original_positions (LongRoPE has other frequencies there).
std::vector<double> rope_frequencies(ModelConfig const& config, bool long_row = false);

/// cos and sin of every position, computed in double once, held in the compute type, grown on demand. Passes
/// that are made at the same time may share it.
class RopeTable {
 public:
  /// cos and sin are multiplied by `factor`.
  RopeTable(std::vector<double> frequencies, double factor, at::ScalarType type, c10::Device device);
  /// cos and sin [N, 1, R/2] of the given positions (int64 [N]), all below `end`.
  std::pair<at::Tensor, at::Tensor> rows(at::Tensor const& positions, int64_t end) const;

 private:
  void grow(int64_t positions) const;
  std::vector<double> frequencies_;
  double factor_ = 1;
  at::ScalarType type_ = at::kFloat;
  c10::Device device_ = c10::kCPU;
  mutable std::mutex growing_;
  mutable at::Tensor cos_, sin_;  ///< [positions, 1, R/2]
};

}  // namespace fsllm::detail
