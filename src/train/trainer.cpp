// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/trainer.hpp"

#include "fsllm/core/error.hpp"
#include "order.hpp"

namespace fsllm {

BatchOrder order_of(TrainConfig const& config, int64_t rows, ClientRound const& which,
                    std::vector<int64_t> lengths) {
  int64_t const batches = config.epochs ? 0 : config.local_update_steps * config.accumulation;
  return BatchOrder(rows, config.batch, which.seed, which.client, which.round, batches, std::move(lengths));
}

int64_t planned_batches(TrainConfig const& config, int64_t rows) {
  if (!config.epochs) return config.local_update_steps * config.accumulation;
  return config.local_update_steps * order_of(config, rows, {}).steps_per_epoch();
}

TrainResult& TrainResult::operator+=(TrainResult const& more) {
  loss_sum += more.loss_sum;
  targets += more.targets;
  tokens += more.tokens;
  samples += more.samples;
  steps += more.steps;
  skipped_steps += more.skipped_steps;
  overflow_steps += more.overflow_steps;
  if (loss_scale == 0 || (more.loss_scale > 0 && more.loss_scale < loss_scale)) loss_scale = more.loss_scale;
  redrawn += more.redrawn;
  pairs += more.pairs;
  of_pairs = of_pairs || more.of_pairs;
  lr_sum += more.lr_sum;
  seconds += more.seconds;
  return *this;
}

namespace {

/// MeZO, by its own name or by that of FS-LLM's trainer (load_loss declares the key), whose optimizer.type
/// then means nothing.
void load_optimizer(Config& config, TrainConfig& c) {
  if (config.text("trainer.type") == "mezotrainer") config.set("train.optimizer.type", "MeZO");
  c.optimizer =
      load_optimizer_config(config, "train.optimizer", {.more_types = {"MeZO"}, .more_arguments = {}});
  c.zo_eps =
      config.get("train.zo_eps", 1e-3,
                 "MeZO: the losses at w + zo_eps z and w - zo_eps z make a step along z.", more_than(0));
  if (!c.zeroth_order()) return;
  auto const refuse = [&](bool refused, char const* key) {
    FSLLM_CHECK(!refused, "{} with train.optimizer.type = MeZO (which has no gradients). Leave it out.",
                config.where(key));
  };
  refuse(c.optimizer.weight_decay > 0, "train.optimizer.weight_decay");
  refuse(c.grad_clip > 0, "grad.grad_clip");
  refuse(c.redraws, "llm.retry_on_nan_loss");
  refuse(c.loss_scale.fixed > 0, "train.loss_scale");
}

}  // namespace

TrainConfig load_train_config(Config& config) {
  TrainConfig c;
  c.local_update_steps = config.get<int64_t>(
      "train.local_update_steps", 1, "Optimiser steps (or epochs) of a client in a round.", at_least(1));
  c.epochs = config.get("train.batch_or_epoch", "batch", "What local_update_steps counts.",
                        one_of({"batch", "epoch"})) == "epoch";
  c.micro_batch_size = config.get<int64_t>(
      "train.micro_batch_size", 0, "Rows (pairs) in one forward pass; 0 is the whole batch.", at_least(0));
  c.accumulation =
      config.get<int64_t>("grad.grad_accum_count", 1,
                          "Batches accumulated in one optimiser step, weighted by tokens.", at_least(1));
  c.grad_clip =
      config.get("grad.grad_clip", -1.0, "Largest L2 norm of the gradient; 0 or below: no clipping.");
  c.redraws = config.get("llm.retry_on_nan_loss", false,
                         "A step whose loss is not finite takes the rows that come after those of the round, "
                         "up to ten times, before it is skipped.");
  c.loss = load_loss(config);
  c.loss_scale = load_loss_scale_config(config);
  load_optimizer(config, c);
  c.schedule = load_schedule_config(config);
  c.batch = load_batch_config(config);
  c.beta = config.get("llm.reward_coeff", c.loss == LossKind::reward ? 1.0 : 0.1,
                      "β of train.loss dpo and reward (where it is 1 by default): what the difference of the "
                      "answers' log-probability ratios is multiplied by.",
                      more_than(0));
  return c;
}

int64_t planned_steps(TrainConfig const& config, int64_t rows) {
  int64_t const groups = (planned_batches(config, rows) + config.accumulation - 1) / config.accumulation;
  return groups * config.steps_per_batch;
}

}  // namespace fsllm
