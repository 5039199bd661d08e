// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>

#include "fsllm/core/config.hpp"

namespace fsllm {

/// Keys `train.scheduler.*`.
struct ScheduleConfig {
  std::string type;  ///< "" or "constant", "linear", "cosine"
  double warmup_ratio = 0;
  int64_t warmup_steps = 0;
};
ScheduleConfig load_schedule_config(Config& config);

/// Factor on the learning rate at `step` of `total_steps` (over all rounds of the run), with the formulas of
/// transformers' get_constant/linear/cosine_schedule_with_warmup.
double learning_rate_factor(ScheduleConfig const& config, int64_t step, int64_t total_steps);

}  // namespace fsllm
