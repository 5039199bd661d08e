// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>

#include "fsllm/data/batch.hpp"
#include "fsllm/data/loss_kind.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/train/loss_scale.hpp"
#include "fsllm/train/optimizer.hpp"
#include "fsllm/train/schedule.hpp"

namespace fsllm {

/// Keys `train.*`, `grad.*`, `dataloader.*`, `llm.reward_coeff`: one client's local work in a round.
struct TrainConfig {
  int64_t local_update_steps = 1;
  bool epochs = false;           ///< train.batch_or_epoch: steps count epochs
  int64_t accumulation = 1;      ///< batches an optimiser step
  int64_t micro_batch_size = 0;  ///< rows a forward pass; 0 = the whole batch
  int64_t steps_per_batch = 1;   ///< optimiser steps one after another on the same rows
  bool redraws = false;          ///< a step whose loss is not finite takes other rows
  double grad_clip = -1;
  double zo_eps = 1e-3;  ///< how far MeZO looks along z
  OptimizerConfig optimizer;
  LossScaleConfig loss_scale;
  /// MeZO: steps along random directions, without gradients (zeroth_order.hpp).
  bool zeroth_order() const { return optimizer.type == "MeZO"; }
  ScheduleConfig schedule;
  BatchConfig batch;
  LossKind loss = LossKind::causal_lm;
  double beta = 0.1;  ///< llm.reward_coeff
};
TrainConfig load_train_config(Config& config);

/// Which work this is: keys of the random streams, and the place in the schedule.
struct ClientRound {
  uint64_t seed = 0;
  int64_t client = 0;
  int64_t round = 0;  ///< from 0
  int64_t total_rounds = 1;
};

struct TrainResult {
  double loss_sum = 0;  ///< over terms()
  int64_t targets = 0, tokens = 0, samples = 0, steps = 0;
  int64_t skipped_steps = 0;   ///< loss or gradient not finite
  int64_t overflow_steps = 0;  ///< skipped too: gradients overflowed under the loss scale
  double loss_scale = 0;       ///< after the last step, the lowest of several clients; 0: none is used
  int64_t redrawn = 0;         ///< times that a step took other rows
  int64_t pairs = 0;           ///< of the steps that were taken
  bool of_pairs = false;       ///< rows are pairs of answers
  double lr_sum = 0;           ///< of the steps that were taken
  double seconds = 0;
  /// What the loss is a mean over: pairs, or targets.
  int64_t terms() const { return of_pairs ? pairs : targets; }
  TrainResult& operator+=(TrainResult const& more);
};

/// What one optimiser step did.
struct StepResult {
  int64_t tokens = 0;
  double loss = 0;     ///< mean per target, or pair
  bool taken = false;  ///< not skipped
};

/// Called after each step with (tokens of the step, its mean loss).
using StepObserver = std::function<void(int64_t, double)>;

/// Optimiser steps that `train_client` will do on this many rows (pairs).
int64_t planned_steps(TrainConfig const& config, int64_t rows);

/// All steps of LocalTraining.
TrainResult train_client(CausalLM& model, TensorMap& parameters, TokenSplit const& data,
                         TrainConfig const& config, ClientRound const& which,
                         StepObserver const& observe = {});

}  // namespace fsllm
