// SPDX-License-Identifier: Apache-2.0
#include "rope.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace fsllm::detail {
namespace {

/// LLaMA 3.1: long wavelengths are stretched by the factor, short ones kept, those between interpolated
/// (transformers modeling_rope_utils, `_compute_llama3_parameters`).
double llama3_scaled(double frequency, ModelConfig const& config) {
  double const wavelength = 2 * std::numbers::pi / frequency;
  auto const original = static_cast<double>(config.rope_original_positions);
  if (wavelength < original / config.rope_high_freq_factor) return frequency;
  if (wavelength > original / config.rope_low_freq_factor) return frequency / config.rope_factor;
  double const smooth = (original / wavelength - config.rope_low_freq_factor) /
                        (config.rope_high_freq_factor - config.rope_low_freq_factor);
  return (1 - smooth) * frequency / config.rope_factor + smooth * frequency;
}

/// YaRN: fast frequencies are kept, slow ones divided by the factor, those between interpolated (Peng et al.
/// 2024, section 3.2; transformers modeling_rope_utils, `_compute_yarn_parameters`).
double yarn_scaled(double frequency, int64_t index, ModelConfig const& config) {
  double const ramp =
      (static_cast<double>(index) - config.rope_ramp_begin) / (config.rope_ramp_end - config.rope_ramp_begin);
  double const stretched = std::clamp(ramp, 0.0, 1.0);
  return (1 - stretched) * frequency + stretched * frequency / config.rope_factor;
}

}  // namespace

std::vector<double> rope_frequencies(ModelConfig const& config, bool long_row) {
  std::vector<double> frequencies;
  for (int64_t i = 0; i < config.rotary_dim; i += 2) {
    double const frequency =
        std::pow(config.rope_theta, -static_cast<double>(i) / static_cast<double>(config.rotary_dim));
    switch (config.rope_scaling) {
      case RopeScaling::none:
        frequencies.push_back(frequency);
        break;
      case RopeScaling::linear:
        frequencies.push_back(frequency / config.rope_factor);
        break;
      case RopeScaling::llama3:
        frequencies.push_back(llama3_scaled(frequency, config));
        break;
      case RopeScaling::yarn:
        frequencies.push_back(yarn_scaled(frequency, i / 2, config));
        break;
      case RopeScaling::longrope: {
        auto const& divisors = long_row ? config.rope_long_factors : config.rope_short_factors;
        frequencies.push_back(frequency / divisors[static_cast<size_t>(i / 2)]);
        break;
      }
    }
  }
  return frequencies;
}

RopeTable::RopeTable(std::vector<double> frequencies, double factor, at::ScalarType type, c10::Device device)
    : frequencies_(std::move(frequencies)), factor_(factor), type_(type), device_(device) {}

void RopeTable::grow(int64_t positions) const {
  auto const half = static_cast<int64_t>(frequencies_.size());
  auto cos = at::empty({positions, 1, half}, at::kDouble), sin = at::empty({positions, 1, half}, at::kDouble);
  auto* c = cos.mutable_data_ptr<double>();
  auto* s = sin.mutable_data_ptr<double>();
  for (int64_t position = 0; position < positions; ++position)
    for (double const frequency : frequencies_) {
      double const angle = static_cast<double>(position) * frequency;
      *c++ = factor_ * std::cos(angle);
      *s++ = factor_ * std::sin(angle);
    }
  cos_ = cos.to(device_, type_);
  sin_ = sin.to(device_, type_);
}

std::pair<at::Tensor, at::Tensor> RopeTable::rows(at::Tensor const& positions, int64_t end) const {
  std::lock_guard const lock(growing_);
  int64_t const known = cos_.defined() ? cos_.size(0) : 0;
  if (end > known) grow(std::max<int64_t>({end, 2 * known, 256}));
  return {at::index_select(cos_, 0, positions), at::index_select(sin_, 0, positions)};
}

}  // namespace fsllm::detail
