// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/local_training.hpp"

#include <ATen/ops/div.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <chrono>
#include <cmath>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/train/loss.hpp"
#include "fsllm/train/pair_loss.hpp"
#include "step_batches.hpp"

namespace fsllm {
namespace {

/// Adds a scalar to a sum, which begins undefined, on the scalar's device.
void add_to(at::Tensor& sum, at::Tensor const& value) {
  sum = sum.defined() ? sum.add(value) : value;
}

double value_of(at::Tensor const& sum) {
  return sum.defined() ? sum.item<double>() : 0;
}

/// Global L2 norm of the gradients, fp64.
double gradient_norm(TensorMap const& parameters) {
  at::Tensor squares;
  for (auto const& [name, tensor] : parameters) {
    if (!tensor.grad().defined()) continue;
    auto const norm = at::linalg_vector_norm(tensor.grad(), 2, {}, false, at::kDouble);
    add_to(squares, norm.mul(norm));
  }
  return std::sqrt(value_of(squares));
}

/// torch.nn.utils.clip_grad_norm_: factor max_norm / (norm + 1e-6), never above 1.
void scale_gradients(TensorMap const& parameters, double norm, double max_norm) {
  double const factor = max_norm / (norm + 1e-6);
  if (factor >= 1) return;
  for (auto const& [name, tensor] : parameters)
    if (tensor.grad().defined()) tensor.grad().mul_(factor);
}

/// A step takes other rows so often at most.
constexpr int64_t kMostRedraws = 10;

/// Forward and backward of one step; the gradients are those of the mean loss per target, or pair. Returns
/// the summed loss.
double accumulate_gradients(CausalLM& model, TrainConfig const& config,
                            LocalTraining::Prepared const& prepared) {
  at::Tensor sum;
  for (auto const& batch : prepared.batches) {
    if (batch.num_targets() == 0) continue;
    auto const loss = learns_from_pairs(config.loss)
                          ? summed_pair_loss(model, batch, {config.loss, config.beta}, prepared.dropout)
                          : summed_loss(model, batch, prepared.dropout);
    add_to(sum, loss.detach().to(at::kDouble));
    at::div(loss, static_cast<double>(prepared.terms())).backward();
  }
  return value_of(sum);
}

}  // namespace

struct LocalTraining::Impl {
  Impl(CausalLM& model_, TensorMap& parameters_, TokenSplit const& data, TrainConfig const& config_,
       ClientRound const& which_, GradientHook hook_, std::span<double const> reference)
      : model(model_),
        parameters(parameters_),
        config(config_),
        which(which_),
        hook(std::move(hook_)),
        steps(planned_steps(config_, data.samples())),
        step_batches(data, config_, which_, steps / config_.steps_per_batch, reference),
        optimizer(config_.optimizer, parameters_) {
    result.of_pairs = data.pairs;
  }

  /// The rows of the step that comes next.
  void draw() {
    if (result.steps % config.steps_per_batch == 0 || batches.empty())
      batches = step_batches.at(result.steps / config.steps_per_batch);
  }

  /// The rows that are drawn, counted; their gradients may come.
  Prepared prepare() {
    Prepared prepared{batches, 0, 0, {which.seed, which.client, which.round, result.steps}};
    for (auto const& batch : batches) {
      prepared.tokens += batch.num_tokens();
      prepared.targets += batch.num_targets();
      result.samples += batch.num_pairs() > 0 ? batch.num_pairs() : batch.num_rows();
      prepared.pairs += batch.num_pairs();
    }
    optimizer.zero_grad();
    return prepared;
  }

  double loss_of(Prepared const& prepared) { return accumulate_gradients(model, config, prepared); }

  /// Where the loss is not finite: that of rows which come after the round's.
  double loss_of_others(Prepared& prepared, double sum) {
    int64_t const planned = steps / config.steps_per_batch;
    for (int64_t again = 0; !std::isfinite(sum) && again < kMostRedraws; ++again) {
      batches = step_batches.at(planned + result.redrawn++);
      auto const tokens = prepared.tokens;
      prepared = prepare();
      prepared.tokens += tokens;
      sum = loss_of(prepared);
    }
    return sum;
  }

  void update(double norm) {
    if (config.grad_clip > 0) scale_gradients(parameters, norm, config.grad_clip);
    double const lr =
        config.optimizer.lr *
        learning_rate_factor(config.schedule, which.round * steps + result.steps, which.total_rounds * steps);
    optimizer.set_lr(lr);
    optimizer.step();
    result.lr_sum += lr;
  }

  void end() {
    optimizer.zero_grad();
    if (result.skipped_steps > 0)
      log_warning(
          "client {}, round {}: {} of {} steps skipped (loss or gradient not finite). Lower "
          "train.optimizer.lr.",
          which.client, which.round + 1, result.skipped_steps, steps);
    if (result.redrawn > 0)
      log_warning("client {}, round {}: steps took other rows {} times (loss not finite)", which.client,
                  which.round + 1, result.redrawn);
  }

  CausalLM& model;
  TensorMap& parameters;
  TrainConfig const& config;
  ClientRound which;
  GradientHook hook;
  int64_t steps;
  StepBatches step_batches;
  std::vector<Batch> batches;  ///< of the step that comes next, or was last
  Optimizer optimizer;
  TrainResult result;
};

LocalTraining::LocalTraining(CausalLM& model, TensorMap& parameters, TokenSplit const& data,
                             TrainConfig const& config, ClientRound const& which, GradientHook hook,
                             std::span<double const> reference)
    : impl_(std::make_unique<Impl>(model, parameters, data, config, which, std::move(hook), reference)) {
  FSLLM_ASSERT(data.pairs == learns_from_pairs(config.loss));
  FSLLM_ASSERT(!data.pairs || std::ssize(reference) == data.rows());
}

LocalTraining::~LocalTraining() = default;

bool LocalTraining::done() const {
  return impl_->result.steps == impl_->steps;
}

TrainResult LocalTraining::result() const {
  return impl_->result;
}

LocalTraining::Prepared LocalTraining::prepare() {
  FSLLM_ASSERT(!done());
  impl_->draw();
  return impl_->prepare();
}

StepResult LocalTraining::finish(Prepared const& prepared, double sum) {
  auto& own = *impl_;
  StepResult step{prepared.tokens};
  if (own.hook) own.hook(own.parameters);
  double const norm = gradient_norm(own.parameters);
  step.taken = std::isfinite(sum) && std::isfinite(norm);
  if (step.taken) {
    step.loss = prepared.terms() > 0 ? sum / static_cast<double>(prepared.terms()) : 0;
    own.result.loss_sum += sum;
    own.result.targets += prepared.targets;
    own.result.pairs += prepared.pairs;
    own.update(norm);
  } else {
    ++own.result.skipped_steps;
  }
  own.result.tokens += step.tokens;
  ++own.result.steps;
  if (done()) own.end();
  return step;
}

void LocalTraining::add_seconds(double seconds) {
  impl_->result.seconds += seconds;
}

StepResult LocalTraining::step() {
  auto const start = std::chrono::steady_clock::now();
  auto prepared = prepare();
  double sum = impl_->loss_of(prepared);
  if (impl_->config.redraws) sum = impl_->loss_of_others(prepared, sum);
  auto const step = finish(prepared, sum);
  add_seconds(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return step;
}

TrainingState LocalTraining::state() const {
  return {impl_->result, impl_->optimizer.state()};
}

void LocalTraining::load_state(TrainingState const& state) {
  impl_->result = state.result;
  impl_->result.of_pairs = learns_from_pairs(impl_->config.loss);
  impl_->optimizer.load_state(state.optimizer);
}

TrainResult train_client(CausalLM& model, TensorMap& parameters, TokenSplit const& data,
                         TrainConfig const& config, ClientRound const& which, StepObserver const& observe) {
  LocalTraining training(model, parameters, data, config, which);
  while (!training.done()) {
    auto const step = training.step();
    if (step.taken && observe) observe(step.tokens, step.loss);
  }
  return training.result();
}

}  // namespace fsllm
