// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/loss_scale.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/scalar_tensor.h>

#include <algorithm>
#include <cmath>

namespace fsllm {
namespace {

constexpr char const* kValue = "loss_scale";
constexpr char const* kSteps = "loss_scale_steps";
constexpr char const* kPatience = "loss_scale_patience";
/// Largest power of two in fp32, in which the scaled loss is.
constexpr double kLargest = 0x1p127;

}  // namespace

LossScaleConfig load_loss_scale_config(Config& config) {
  LossScaleConfig c;
  c.fixed = config.get("train.loss_scale", 0.0,
                       "Losses are multiplied by this before the backward pass, and gradients divided; 0: "
                       "found out while training where train.compute_dtype is fp16, 1 elsewhere.",
                       at_least(0));
  c.initial_power =
      config.get<int64_t>("train.initial_scale_power", c.initial_power,
                          "train.loss_scale 0: a client begins with 2 to the power of this; each step whose "
                          "gradients overflow is skipped and halves it.",
                          within(0, 32));
  c.window = config.get<int64_t>("train.loss_scale_window", c.window,
                                 "train.loss_scale 0: it doubles after so many steps without overflow.",
                                 at_least(1));
  c.hysteresis = config.get<int64_t>(
      "train.loss_scale_hysteresis", c.hysteresis,
      "train.loss_scale 0: from this overflow on, since it was last doubled, it is halved (DeepSpeed's "
      "hysteresis).",
      at_least(1));
  return c;
}

LossScale::LossScale(LossScaleConfig const& config, bool half)
    : dynamic_(half && config.fixed == 0),
      value_(config.fixed == 0 ? 1 : config.fixed),
      window_(config.window),
      hysteresis_(config.hysteresis),
      patience_(config.hysteresis - 1) {
  if (dynamic_) value_ = std::exp2(static_cast<double>(config.initial_power));
}

void LossScale::update(bool overflow) {
  if (!dynamic_) return;
  if (!overflow && ++steps_ < window_) return;
  steps_ = 0;
  if (overflow && patience_ > 0) {
    --patience_;
    return;
  }
  if (!overflow) patience_ = hysteresis_ - 1;
  value_ = overflow ? std::max(1.0, value_ / 2) : std::min(kLargest, value_ * 2);
}

void LossScale::save(TensorMap& state) const {
  if (!dynamic_) return;
  state.emplace(kValue, at::scalar_tensor(value_, at::kDouble));
  state.emplace(kSteps, at::scalar_tensor(steps_, at::kLong));
  if (hysteresis_ > 1) state.emplace(kPatience, at::scalar_tensor(patience_, at::kLong));
}

void LossScale::load(TensorMap const& state) {
  auto const value = state.find(kValue), steps = state.find(kSteps);
  if (!dynamic_ || value == state.end() || steps == state.end()) return;
  value_ = value->second.item<double>();
  steps_ = steps->second.item<int64_t>();
  if (auto const patience = state.find(kPatience); patience != state.end())
    patience_ = patience->second.item<int64_t>();
}

}  // namespace fsllm
