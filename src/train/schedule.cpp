// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace fsllm {

ScheduleConfig load_schedule_config(Config& config) {
  ScheduleConfig c;
  c.type = config.get("train.scheduler.type", "", "Learning-rate schedule over all rounds; '' is constant.",
                      one_of({"", "constant", "linear", "cosine"}));
  c.warmup_ratio = config.get("train.scheduler.warmup_ratio", 0.0,
                              "Share of all steps with a rising learning rate.", within(0, 1));
  c.warmup_steps = config.get<int64_t>(
      "train.scheduler.warmup_steps", 0,
      "Steps with a rising learning rate; more than 0 overrides warmup_ratio.", at_least(0));
  return c;
}

double learning_rate_factor(ScheduleConfig const& config, int64_t step, int64_t total_steps) {
  auto const total = static_cast<double>(total_steps), at = static_cast<double>(step);
  double const warmup = config.warmup_steps > 0 ? static_cast<double>(config.warmup_steps)
                                                : std::ceil(config.warmup_ratio * total);
  if (at < warmup) return at / std::max(1.0, warmup);
  double const rest = std::max(1.0, total - warmup);
  if (config.type == "linear") return std::max(0.0, (total - at) / rest);
  if (config.type == "cosine")
    return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * (at - warmup) / rest)));
  return 1;
}

}  // namespace fsllm
