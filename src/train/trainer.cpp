// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/trainer.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/div.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <future>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/rng.hpp"
#include "fsllm/train/loss.hpp"

namespace fsllm {
namespace {

/// Global L2 norm of the gradients, fp64.
double gradient_norm(TensorMap const& parameters) {
  double squares = 0;
  for (auto const& [name, tensor] : parameters) {
    if (!tensor.grad().defined()) continue;
    double const norm = at::linalg_vector_norm(tensor.grad(), 2, {}, false, at::kDouble).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

/// torch.nn.utils.clip_grad_norm_: factor max_norm / (norm + 1e-6), never above 1.
void scale_gradients(TensorMap const& parameters, double norm, double max_norm) {
  double const factor = max_norm / (norm + 1e-6);
  if (factor >= 1) return;
  for (auto const& [name, tensor] : parameters)
    if (tensor.grad().defined()) tensor.grad().mul_(factor);
}

BatchOrder order_of(TrainConfig const& config, int64_t rows, ClientRound const& which,
                    std::vector<int64_t> lengths = {}) {
  int64_t const batches = config.epochs ? 0 : config.local_update_steps * config.accumulation;
  return BatchOrder(rows, config.batch, which.seed, which.client, which.round, batches, std::move(lengths));
}

/// Batches of a client in a round.
int64_t planned_batches(TrainConfig const& config, int64_t rows) {
  if (!config.epochs) return config.local_update_steps * config.accumulation;
  return config.local_update_steps * order_of(config, rows, {}).steps_per_epoch();
}

/// The rows of one optimiser step, cut into forward passes.
std::vector<Batch> batches_of_step(BatchOrder& order, TokenSplit const& data, TrainConfig const& config,
                                   int64_t step) {
  std::vector<Batch> batches;
  int64_t const first = step * config.accumulation;
  int64_t const end = std::min(first + config.accumulation, planned_batches(config, data.rows()));
  for (int64_t at = first; at < end; ++at) {
    auto const rows = order.rows_of_step(at);
    auto const count = static_cast<int64_t>(rows.size());
    int64_t const micro = config.micro_batch_size > 0 ? config.micro_batch_size : count;
    for (int64_t begin = 0; begin < count; begin += micro) {
      batches.emplace_back().pad_attention = config.batch.pad_attention;
      for (int64_t i = begin; i < std::min(begin + micro, count); ++i)
        append_row(batches.back(), data, rows[i]);
    }
  }
  return batches;
}

/// The batches of one step after another; with dataloader.num_workers the next ones are made in the
/// background.
class StepBatches {
 public:
  StepBatches(TokenSplit const& data, TrainConfig const& config, ClientRound const& which, int64_t steps)
      : data_(data),
        config_(config),
        order_(order_of(config, data.rows(), which,
                        config.batch.group_by_length ? row_lengths(data) : std::vector<int64_t>())),
        steps_(steps) {}

  std::vector<Batch> next() {
    auto batches = ahead_.valid() ? ahead_.get() : make(step_);
    if (++step_ < steps_ && config_.batch.num_workers > 0)
      ahead_ = std::async(std::launch::async, [this] { return make(step_); });
    return batches;
  }

 private:
  std::vector<Batch> make(int64_t step) { return batches_of_step(order_, data_, config_, step); }

  TokenSplit const& data_;
  TrainConfig const& config_;
  BatchOrder order_;
  int64_t steps_, step_ = 0;
  std::future<std::vector<Batch>> ahead_;  ///< last, so that it has ended before the rest goes
};

/// Forward and backward of one step; the gradients are those of the mean loss per target. Returns the summed
/// loss.
double accumulate_gradients(CausalLM& model, std::vector<Batch> const& batches, int64_t targets,
                            ForwardContext& context) {
  double sum = 0;
  for (auto const& batch : batches) {
    if (batch.num_targets() == 0) continue;
    auto const loss = summed_loss(model, batch, context);
    sum += loss.item<double>();
    at::div(loss, static_cast<double>(targets)).backward();
  }
  return sum;
}

}  // namespace

TrainConfig load_train_config(Config& config) {
  TrainConfig c;
  c.local_update_steps = config.get<int64_t>(
      "train.local_update_steps", 1, "Optimiser steps (or epochs) of a client in a round.", at_least(1));
  c.epochs = config.get("train.batch_or_epoch", "batch", "What local_update_steps counts.",
                        one_of({"batch", "epoch"})) == "epoch";
  c.micro_batch_size = config.get<int64_t>("train.micro_batch_size", 0,
                                           "Rows in one forward pass; 0 is the whole batch.", at_least(0));
  c.accumulation =
      config.get<int64_t>("grad.grad_accum_count", 1,
                          "Batches accumulated in one optimiser step, weighted by tokens.", at_least(1));
  c.grad_clip =
      config.get("grad.grad_clip", -1.0, "Largest L2 norm of the gradient; 0 or below: no clipping.");
  c.optimizer = load_optimizer_config(config, "train.optimizer", 0.1);
  c.schedule = load_schedule_config(config);
  c.batch = load_batch_config(config);
  return c;
}

int64_t planned_steps(TrainConfig const& config, int64_t rows) {
  return (planned_batches(config, rows) + config.accumulation - 1) / config.accumulation;
}

TrainResult train_client(CausalLM& model, TensorMap& parameters, TokenSplit const& data,
                         TrainConfig const& config, ClientRound const& which, StepObserver const& observe) {
  auto const start = std::chrono::steady_clock::now();
  int64_t const steps = planned_steps(config, data.rows());
  StepBatches step_batches(data, config, which, steps);
  Optimizer optimizer(config.optimizer, parameters);
  TrainResult result;
  for (int64_t step = 0; step < steps; ++step) {
    auto const batches = step_batches.next();
    int64_t tokens = 0, targets = 0;
    for (auto const& batch : batches) {
      tokens += batch.num_tokens();
      targets += batch.num_targets();
      result.samples += batch.num_rows();
    }
    ForwardContext context;
    context.training = true;
    context.dropout = at::detail::createCPUGenerator(
        derive_seed(which.seed, Purpose::dropout, static_cast<uint64_t>(which.client),
                    static_cast<uint64_t>(which.round), static_cast<uint64_t>(step)));
    optimizer.zero_grad();
    double const sum = accumulate_gradients(model, batches, targets, context);
    double const norm = gradient_norm(parameters);
    ++result.steps;
    result.tokens += tokens;
    if (!std::isfinite(sum) || !std::isfinite(norm)) {
      ++result.skipped_steps;
      continue;
    }
    result.loss_sum += sum;
    result.targets += targets;
    if (config.grad_clip > 0) scale_gradients(parameters, norm, config.grad_clip);
    optimizer.set_lr(config.optimizer.lr * learning_rate_factor(config.schedule, which.round * steps + step,
                                                                which.total_rounds * steps));
    optimizer.step();
    if (observe) observe(tokens, targets > 0 ? sum / static_cast<double>(targets) : 0);
  }
  optimizer.zero_grad();
  if (result.skipped_steps > 0)
    log_warning(
        "client {}, round {}: {} of {} steps skipped (loss or gradient not finite). Lower "
        "train.optimizer.lr.",
        which.client, which.round + 1, result.skipped_steps, steps);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace fsllm
