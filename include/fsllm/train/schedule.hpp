// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>

#include "fsllm/core/config.hpp"

namespace fsllm {

/// Keys `train.scheduler.*`.
struct ScheduleConfig {
  std::string type;  ///< "" or "constant", "linear", "cosine"; "WarmupLR", "WarmupDecayLR", "WarmupCosineLR"
  double warmup_ratio = 0;
  int64_t warmup_steps = 0;
  // Of DeepSpeed's three:
  bool log_warmup = true;
  double warmup_min_ratio = 0, cos_min_ratio = 0.0001;
  int64_t total_steps = 0;  ///< 0: those of the run
};
ScheduleConfig load_schedule_config(Config& config);

/// Factor on the learning rate at `step` of `total_steps` (over all rounds of the run), with the formulas of
/// transformers' get_constant/linear/cosine_schedule_with_warmup, or those of DeepSpeed's
/// runtime/lr_schedules.py, whose first two steps both have the lowest rate of the warm-up.
double learning_rate_factor(ScheduleConfig const& config, int64_t step, int64_t total_steps);

}  // namespace fsllm
