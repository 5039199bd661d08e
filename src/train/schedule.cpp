// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "fsllm/core/error.hpp"

namespace fsllm {

namespace {

bool is_deepspeeds(std::string const& type) {
  return type.starts_with("Warmup");
}

/// How far the warm-up is at DeepSpeed's iteration, from 0 to 1.
double warmed(ScheduleConfig const& config, double at, double warmup) {
  return config.log_warmup ? std::log(at + 1) / std::log(warmup) : at / warmup;
}

/// Its schedulers move after a step: step s > 0 has the rate of iteration s - 1.
double deepspeed_factor(ScheduleConfig const& config, int64_t step, double warmup, double total) {
  if (step == 0) return config.type == "WarmupCosineLR" ? 0 : config.warmup_min_ratio;
  auto const at = static_cast<double>(step - 1);
  warmup = std::max(2.0, warmup);
  auto const from = [](double low, double share) { return low + (1 - low) * share; };
  if (at < warmup) return from(config.warmup_min_ratio, warmed(config, at, warmup));
  if (config.type == "WarmupDecayLR")
    return from(config.warmup_min_ratio, std::max(0.0, (total - at) / std::max(1.0, total - warmup)));
  if (config.type == "WarmupLR") return 1;
  double const share = (1 + std::cos(std::numbers::pi * (at - warmup + 1) / (total - warmup))) / 2;
  return std::max(0.0, from(config.cos_min_ratio, share));
}

/// Keys that only DeepSpeed's schedules have.
void load_deepspeeds(Config& config, ScheduleConfig& c) {
  c.log_warmup = config.get("train.scheduler.warmup_type", "log",
                            "WarmupLR, WarmupDecayLR, WarmupCosineLR: the rate rises by the logarithm of the "
                            "step or in a line.",
                            one_of({"log", "linear"})) == "log";
  c.warmup_min_ratio =
      config.get("train.scheduler.warmup_min_ratio", 0.0,
                 "The same: where the warm-up begins (and WarmupDecayLR ends), as a share of "
                 "train.optimizer.lr.",
                 within(0, 1));
  c.cos_min_ratio =
      config.get("train.scheduler.cos_min_ratio", c.cos_min_ratio,
                 "WarmupCosineLR: where it ends, as a share of train.optimizer.lr.", within(0, 1));
  c.total_steps = config.get<int64_t>("train.scheduler.total_steps", 0,
                                      "WarmupDecayLR, WarmupCosineLR: steps of a client until the end of the "
                                      "decay; 0: those of all rounds.",
                                      at_least(0));
  if (is_deepspeeds(c.type)) return;
  // A run's own config.yaml holds the defaults of all keys.
  ScheduleConfig const fresh;
  for (auto const& [key, changed] : {std::pair{"warmup_type", c.log_warmup != fresh.log_warmup},
                                     {"warmup_min_ratio", c.warmup_min_ratio != fresh.warmup_min_ratio},
                                     {"cos_min_ratio", c.cos_min_ratio != fresh.cos_min_ratio},
                                     {"total_steps", c.total_steps != fresh.total_steps}})
    FSLLM_CHECK(!changed,
                "{} (train.scheduler.type is '{}', which has no such argument). Leave it out, or choose "
                "WarmupLR, WarmupDecayLR or WarmupCosineLR.",
                config.where(std::string("train.scheduler.") + key), c.type);
}

}  // namespace

ScheduleConfig load_schedule_config(Config& config) {
  ScheduleConfig c;
  c.type =
      config.get("train.scheduler.type", "",
                 "Learning-rate schedule over all rounds; '' is constant. Warmup...: DeepSpeed's.",
                 one_of({"", "constant", "linear", "cosine", "WarmupLR", "WarmupDecayLR", "WarmupCosineLR"}));
  c.warmup_ratio = config.get("train.scheduler.warmup_ratio", 0.0,
                              "Share of all steps with a rising learning rate.", within(0, 1));
  c.warmup_steps = config.get<int64_t>(
      "train.scheduler.warmup_steps", 0,
      "Steps with a rising learning rate; more than 0 overrides warmup_ratio.", at_least(0));
  load_deepspeeds(config, c);
  return c;
}

double learning_rate_factor(ScheduleConfig const& config, int64_t step, int64_t total_steps) {
  auto const total = static_cast<double>(config.total_steps > 0 ? config.total_steps : total_steps),
             at = static_cast<double>(step);
  double const warmup = config.warmup_steps > 0 ? static_cast<double>(config.warmup_steps)
                                                : std::ceil(config.warmup_ratio * total);
  if (is_deepspeeds(config.type)) return deepspeed_factor(config, step, warmup, total);
  if (at < warmup) return at / std::max(1.0, warmup);
  double const rest = std::max(1.0, total - warmup);
  if (config.type == "linear") return std::max(0.0, (total - at) / rest);
  if (config.type == "cosine")
    return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * (at - warmup) / rest)));
  return 1;
}

}  // namespace fsllm
