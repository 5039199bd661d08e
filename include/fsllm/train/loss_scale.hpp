// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "fsllm/core/config.hpp"
#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// Keys `train.loss_scale`, `train.initial_scale_power`, `train.loss_scale_window`,
/// `train.loss_scale_hysteresis`.
struct LossScaleConfig {
  double fixed = 0;  ///< 0: dynamic where losses are computed in fp16, none in other types
  int64_t initial_power = 16, window = 2000, hysteresis = 1;
};
LossScaleConfig load_loss_scale_config(Config& config);

/// What a loss is multiplied by before the backward pass, so that fp16 gradients do not vanish, and by how
/// much it changes: halved after a step whose gradients overflow, doubled after `window` others
/// (torch.amp.GradScaler's factors; never below 1, as DeepSpeed's). Under a hysteresis n the first n - 1
/// overflows since it was last doubled change nothing (DeepSpeed's DynamicLossScaler).
class LossScale {
 public:
  LossScale(LossScaleConfig const& config, bool half);
  bool in_use() const { return dynamic_ || value_ != 1; }
  bool dynamic() const { return dynamic_; }
  double value() const { return value_; }
  /// After a step whose gradients were finite, or not.
  void update(bool overflow);
  /// Puts it beside the optimiser's state, and back; what is not there stays as it is.
  void save(TensorMap& state) const;
  void load(TensorMap const& state);

 private:
  bool dynamic_;
  double value_;
  int64_t window_, steps_ = 0;         ///< finite ones since the last change or overflow
  int64_t hysteresis_, patience_ = 0;  ///< overflows that are still borne
};

}  // namespace fsllm
