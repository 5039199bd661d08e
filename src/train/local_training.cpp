// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/local_training.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/div.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
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

void scale_gradients(TensorMap const& parameters, double factor) {
  for (auto const& [name, tensor] : parameters)
    if (tensor.grad().defined()) tensor.grad().mul_(factor);
}

/// A step takes other rows so often at most.
constexpr int64_t kMostRedraws = 10;

/// The summed loss of a forward pass: of pairs, or of rows, each with its weight (by row of the data; none:
/// 1).
at::Tensor loss_of_batch(CausalLM& model, TrainConfig const& config, Batch const& batch,
                         LocalTraining::Prepared const& step, std::vector<double> const& row_weights) {
  auto const& dropout = step.dropout;
  double const upstream = step.loss_scale / static_cast<double>(step.terms());
  if (learns_from_pairs(config.loss))
    return summed_pair_loss(model, batch, {config.loss, config.beta}, dropout, upstream);
  if (row_weights.empty()) return summed_loss(model, batch, dropout, upstream);
  std::vector<double> weights;
  for (int64_t const row : batch.rows) weights.push_back(row_weights[static_cast<size_t>(row)]);
  auto const losses = row_losses(model, batch, dropout, upstream);
  return losses.mul(at::tensor(weights, losses.options().requires_grad(false))).sum();
}

void backward_of_mean(at::Tensor const& loss, LocalTraining::Prepared const& step) {
  auto const mean = at::div(loss, static_cast<double>(step.terms()));
  (step.loss_scale == 1 ? mean : at::mul(mean, step.loss_scale)).backward();
}

/// Forward and backward of one step; the gradients are those of the mean loss per target, or pair, times the
/// loss scale. Returns the summed loss.
double accumulate_gradients(CausalLM& model, TrainConfig const& config,
                            LocalTraining::Prepared const& prepared, std::vector<double> const& row_weights) {
  at::Tensor sum;
  for (auto const& batch : prepared.batches) {
    if (batch.num_targets() == 0) continue;
    auto const loss = loss_of_batch(model, config, batch, prepared, row_weights);
    add_to(sum, loss.detach().to(at::kDouble));
    backward_of_mean(loss, prepared);
  }
  return value_of(sum);
}

/// The same by all ranks of a group, each with its rows; afterwards the gradients are the group's.
double accumulate_gradients(CausalLM& model, TrainConfig const& config,
                            LocalTraining::Prepared const& prepared, std::vector<double> const& row_weights,
                            TensorMap const& parameters, RankGroup& group) {
  at::Tensor sum;
  for (auto const& batch : prepared.batches) {
    if (batch.num_targets() == 0) continue;
    auto const share = group.share_of(batch);
    auto const loss = loss_of_batch(model, config, share.batch, prepared, row_weights);
    if (share.counts) add_to(sum, loss.detach().to(at::kDouble));
    backward_of_mean(share.counts ? loss : loss.mul(0), prepared);
    group.end_backward();
  }
  group.sum_gradients(parameters);
  return group.sum(value_of(sum));
}

/// The summed loss of one step.
double loss_without_gradients(CausalLM& model, TrainConfig const& config,
                              LocalTraining::Prepared const& prepared,
                              std::vector<double> const& row_weights) {
  at::NoGradGuard const no_grad;
  at::Tensor sum;
  for (auto const& batch : prepared.batches)
    if (batch.num_targets() > 0)
      add_to(sum, loss_of_batch(model, config, batch, prepared, row_weights).to(at::kDouble));
  return value_of(sum);
}

}  // namespace

struct LocalTraining::Impl {
  Impl(CausalLM& model_, TensorMap& parameters_, TokenSplit const& data, TrainConfig const& config_,
       ClientRound const& which_, GradientHook hook_, std::span<double const> reference, RankGroup* group_)
      : model(model_),
        parameters(parameters_),
        config(config_),
        which(which_),
        hook(std::move(hook_)),
        group(group_),
        steps(planned_steps(config_, data.samples())),
        step_batches(data, config_, which_, steps / config_.steps_per_batch, reference,
                     group_ ? group_->size() : 1),
        scale(config_.loss_scale, model_.compute_type() == at::kHalf && !config_.zeroth_order()),
        optimizer(config_.zeroth_order() ? OptimizerConfig{.type = "SGD"} : config_.optimizer, parameters_) {
    result.of_pairs = data.pairs;
    if (scale.in_use()) result.loss_scale = scale.value();
  }

  /// The rows of the step that comes next.
  void draw() {
    if (result.steps % config.steps_per_batch == 0 || batches.empty())
      batches = step_batches.at(result.steps / config.steps_per_batch);
  }

  /// The rows that are drawn, counted; their gradients may come.
  Prepared prepare() {
    Prepared prepared{batches, 0, 0, {which.seed, which.client, which.round, result.steps}, 0, scale.value()};
    for (auto const& batch : batches) {
      prepared.tokens += batch.num_tokens();
      prepared.targets += batch.num_targets();
      result.samples += batch.num_pairs() > 0 ? batch.num_pairs() : batch.num_rows();
      prepared.pairs += batch.num_pairs();
    }
    optimizer.zero_grad();
    return prepared;
  }

  double loss_of(Prepared const& prepared) {
    if (group) return accumulate_gradients(model, config, prepared, row_weights, parameters, *group);
    return accumulate_gradients(model, config, prepared, row_weights);
  }

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

  /// The learning rate of the step that comes next.
  double rate() const {
    return config.optimizer.lr * learning_rate_factor(config.schedule, which.round * steps + result.steps,
                                                      which.total_rounds * steps);
  }

  /// Of the gradients, also where other ranks have parts of them.
  double norm() const {
    double const own = gradient_norm(parameters);
    return group ? group->norm(own) : own;
  }

  /// Makes the gradients those of the loss itself; false where they have overflowed. Without a scale that
  /// could be blamed they are left alone.
  bool unscale() {
    if (!scale.in_use()) return true;
    bool const finite = std::isfinite(norm());
    bool const overflow = !finite && scale.value() > 1;
    if (finite) scale_gradients(parameters, 1 / scale.value());
    if (finite || overflow) scale.update(overflow);
    result.loss_scale = scale.value();
    return !overflow;
  }

  void update(double length) {
    // torch.nn.utils.clip_grad_norm_
    if (config.grad_clip > 0 && config.grad_clip < length + 1e-6)
      scale_gradients(parameters, config.grad_clip / (length + 1e-6));
    double const lr = rate();
    optimizer.set_lr(lr);
    optimizer.step();
    if (group) group->note_change();
    result.lr_sum += lr;
  }

  /// A step of MeZO. Its loss is the mean of the two.
  StepResult move(Prepared const& prepared) {
    PerturbationKey const key{which.seed, which.client, which.round, result.steps};
    auto const [plus, minus] = losses_around(parameters, key, config.zo_eps, [&] {
      return loss_without_gradients(model, config, prepared, row_weights);
    });
    auto const targets = static_cast<double>(std::max<int64_t>(1, prepared.terms()));
    double const slope = (plus - minus) / (2 * config.zo_eps * targets);
    bool const taken = std::isfinite(slope);
    auto const& made = moves.emplace_back(taken ? ZerothOrderMove{slope, rate()} : ZerothOrderMove{});
    if (taken)
      for (auto const& [name, tensor] : parameters) add_normal(tensor, -made.rate * made.slope, name, key);
    result.lr_sum += made.rate;
    return count(prepared, (plus + minus) / 2, taken);
  }

  /// What is told of a step.
  StepResult count(Prepared const& prepared, double sum, bool taken, bool overflow = false) {
    StepResult step{prepared.tokens, 0, taken};
    if (overflow) {
      ++result.overflow_steps;
    } else if (taken) {
      step.loss = prepared.terms() > 0 ? sum / static_cast<double>(prepared.terms()) : 0;
      result.loss_sum += sum;
      result.targets += prepared.targets;
      result.pairs += prepared.pairs;
    } else {
      ++result.skipped_steps;
    }
    result.tokens += step.tokens;
    if (++result.steps == steps) end();
    return step;
  }

  void end() {
    optimizer.zero_grad();
    if (group) group->end_training();
    if (result.skipped_steps > 0)
      log_warning(
          "client {}, round {}: {} of {} steps skipped (loss or gradient not finite). Lower "
          "train.optimizer.lr.",
          which.client, which.round + 1, result.skipped_steps, steps);
    if (result.overflow_steps > 0 && !scale.dynamic())
      log_warning("client {}, round {}: the gradients of {} of {} steps overflowed. Lower train.loss_scale.",
                  which.client, which.round + 1, result.overflow_steps, steps);
    if (result.redrawn > 0)
      log_warning("client {}, round {}: steps took other rows {} times (loss not finite)", which.client,
                  which.round + 1, result.redrawn);
  }

  CausalLM& model;
  TensorMap& parameters;
  TrainConfig const& config;
  ClientRound which;
  GradientHook hook;
  RankGroup* group;  ///< null: this rank trains alone
  int64_t steps;
  StepBatches step_batches;
  std::vector<Batch> batches;  ///< of the step that comes next, or was last
  LossScale scale;
  Optimizer optimizer;
  std::vector<double> row_weights;  ///< empty: all 1
  TrainResult result;
  std::vector<ZerothOrderMove> moves;
};

LocalTraining::LocalTraining(CausalLM& model, TensorMap& parameters, TokenSplit const& data,
                             TrainConfig const& config, ClientRound const& which, GradientHook hook,
                             std::span<double const> reference, RankGroup* group)
    : impl_(
          std::make_unique<Impl>(model, parameters, data, config, which, std::move(hook), reference, group)) {
  FSLLM_ASSERT(data.pairs == learns_from_pairs(config.loss));
  FSLLM_ASSERT(!data.pairs || std::ssize(reference) == data.rows());
}

LocalTraining::~LocalTraining() = default;

void LocalTraining::weigh_rows(std::vector<double> weights) {
  impl_->row_weights = std::move(weights);
}

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
  if (std::isfinite(sum) && !own.unscale()) return own.count(prepared, sum, false, /*overflow=*/true);
  if (own.hook) own.hook(own.parameters);
  double const norm = own.norm();
  bool const taken = std::isfinite(sum) && std::isfinite(norm);
  if (taken) own.update(norm);
  return own.count(prepared, sum, taken);
}

std::vector<ZerothOrderMove> const& LocalTraining::moves() const {
  return impl_->moves;
}

void LocalTraining::add_seconds(double seconds) {
  impl_->result.seconds += seconds;
}

StepResult LocalTraining::step() {
  auto const start = std::chrono::steady_clock::now();
  auto prepared = prepare();
  auto const by_gradients = [&] {
    double sum = impl_->loss_of(prepared);
    if (impl_->config.redraws) sum = impl_->loss_of_others(prepared, sum);
    return finish(prepared, sum);
  };
  auto const step = impl_->config.zeroth_order() ? impl_->move(prepared) : by_gradients();
  add_seconds(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return step;
}

TrainingState LocalTraining::state() const {
  auto optimizer = impl_->optimizer.state();
  impl_->scale.save(optimizer);
  return {impl_->result, std::move(optimizer), impl_->moves};
}

void LocalTraining::load_state(TrainingState const& state) {
  impl_->result = state.result;
  impl_->result.of_pairs = learns_from_pairs(impl_->config.loss);
  impl_->optimizer.load_state(state.optimizer);
  impl_->scale.load(state.optimizer);
  if (impl_->scale.in_use()) impl_->result.loss_scale = impl_->scale.value();
  impl_->moves = state.moves;
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
