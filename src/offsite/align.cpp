// SPDX-License-Identifier: Apache-2.0
#include "fsllm/offsite/align.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "fsllm/comm/stall.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/finite.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/blocks.hpp"
#include "fsllm/offsite/prune.hpp"
#include "fsllm/train/loss.hpp"

namespace fsllm {
namespace {

/// Keeps what leaves a block.
struct Output final : BlockAdapter {
  at::Tensor value;
  at::Tensor apply(at::Tensor const& x, Pass const&) override { return value = x; }
};

/// The two models with an eye behind their middle blocks.
class Pair {
 public:
  Pair(CausalLM& full, CausalLM& emulator, EmulatorPlan const& plan)
      : full_(full), emulator_(emulator), full_block_(plan.last - 1), block_(plan.middle().back()) {
    full.set_block_adapter(full_block_, teacher_);
    emulator.set_block_adapter(block_, student_);
  }
  ~Pair() {
    full_.set_block_adapter(full_block_, nullptr);
    emulator_.set_block_adapter(block_, nullptr);
  }
  Pair(Pair const&) = delete;
  Pair& operator=(Pair const&) = delete;

  struct Losses {
    at::Tensor lm, kd, kl;  ///< a target, of the batch, a target; undefined where they are not asked for
  };
  Losses of(Batch const& batch, bool lm, bool kl) const {
    at::Tensor of_full;
    {
      at::NoGradGuard const no_grad;
      auto const hidden = hidden_states(full_, batch);
      if (kl) of_full = log_probabilities(full_, hidden, batch);
    }
    Losses losses;
    if (kl) {
      auto const own = log_probabilities(emulator_, hidden_states(emulator_, batch), batch);
      losses.kl = of_full.exp().mul(of_full.sub(own)).sum().div(static_cast<double>(batch.num_targets()));
      if (lm)
        losses.lm =
            own.gather(1, at::tensor(batch.target_ids, at::kLong).to(own.device()).unsqueeze(1)).mean().neg();
    } else if (lm) {
      losses.lm = summed_loss(emulator_, batch).div(static_cast<double>(batch.num_targets()));
    } else {
      hidden_states(emulator_, batch);
    }
    losses.kd = distillation_loss(teacher_->value, student_->value);
    return losses;
  }

 private:
  static at::Tensor hidden_states(CausalLM& model, Batch const& batch) {
    RaggedInput const input{at::tensor(batch.ids, at::kLong), batch.offsets};
    return model.hidden_states(input.ids, model.pass(input, {.packing = batch.packing}));
  }
  /// [targets, vocab], of the tokens that come next.
  static at::Tensor log_probabilities(CausalLM& model, at::Tensor const& hidden, Batch const& batch) {
    auto const positions = at::tensor(batch.target_positions, at::kLong).to(hidden.device());
    return at::log_softmax(model.logits(hidden.index_select(0, positions)), 1, at::kFloat);
  }
  CausalLM &full_, &emulator_;
  int64_t full_block_, block_;
  std::shared_ptr<Output> teacher_ = std::make_shared<Output>(), student_ = std::make_shared<Output>();
};

Batch batch_of(TokenSplit const& rows, std::vector<int64_t> const& numbers, BatchConfig const& config) {
  Batch batch;
  batch.packing = config.packing;
  for (int64_t const row : numbers) append_row(batch, rows, row);
  return batch;
}

AlignLosses judge(Pair const& pair, TokenSplit const& rows, BatchConfig const& config) {
  at::NoGradGuard const no_grad;
  set_activity("judging the emulator");
  double lm = 0, kd = 0;
  int64_t targets = 0, batches = 0;
  for (int64_t begin = 0; begin < rows.rows(); begin += config.batch_size, ++batches) {
    std::vector<int64_t> numbers;
    for (int64_t row = begin; row < std::min(rows.rows(), begin + config.batch_size); ++row)
      numbers.push_back(row);
    auto const batch = batch_of(rows, numbers, config);
    auto const losses = pair.of(batch, true, false);
    lm += losses.lm.item<double>() * static_cast<double>(batch.num_targets());
    kd += losses.kd.item<double>();
    targets += batch.num_targets();
  }
  return {lm / static_cast<double>(std::max<int64_t>(targets, 1)),
          kd / static_cast<double>(std::max<int64_t>(batches, 1))};
}

/// lm_weight · CE + kd_weight · distillation_loss + kl_weight · KL.
at::Tensor total_loss(Pair const& pair, AlignConfig const& config, Batch const& batch) {
  auto const losses = pair.of(batch, config.lm_weight > 0, config.kl_weight > 0);
  auto loss = losses.kd.mul(config.kd_weight);
  if (config.lm_weight > 0) loss = loss.add(losses.lm, config.lm_weight);
  if (config.kl_weight > 0) loss = loss.add(losses.kl, config.kl_weight);
  return loss;
}

/// `absent`: masks of values that stay 0.
void take_steps(Pair const& pair, TensorMap const& learnt, TensorMap const& absent, AlignJob const& job) {
  auto const& config = job.config;
  int64_t const times = job.round == 0 ? config.initial : 1;
  Optimizer optimizer(config.optimizer, learnt);
  BatchOrder order(job.train.rows(), job.batch, job.seed, 0, job.round, config.epochs ? 0 : config.steps,
                   row_lengths(job.train));
  int64_t const steps = times * config.steps * (config.epochs ? order.steps_per_epoch() : 1);
  for (int64_t step = 0; step < steps; ++step) {
    set_activity(fmt::format("aligning the emulator, step {} of {}", step + 1, steps));
    optimizer.zero_grad();
    auto const loss = total_loss(pair, config, batch_of(job.train, order.rows_of_step(step), job.batch));
    FSLLM_CHECK(std::isfinite(loss.item<double>()),
                "step {} of the emulator's alignment has a loss that is not finite (it diverged). Lower "
                "llm.offsite_tuning.emu_align.train.optimizer.lr.",
                step + 1);
    loss.backward();
    optimizer.step();
    at::NoGradGuard const no_grad;
    for (auto const& [name, mask] : absent) learnt.at(name).masked_fill_(mask, 0);
  }
}

}  // namespace

at::Tensor distillation_loss(at::Tensor const& teacher, at::Tensor const& student) {
  auto const wide = teacher.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  auto const t = teacher.to(wide);
  return t.sub(student.to(wide)).div(t.square().mean().sqrt()).square().mean();
}

TensorMap middle_parameters(CausalLM& emulator, EmulatorPlan const& plan) {
  auto const places = plan.middle();
  auto parameters = emulator.parameters();
  std::erase_if(parameters, [&](auto const& each) {
    return std::find(places.begin(), places.end(), block_of(each.first)) == places.end();
  });
  return parameters;
}

AlignResult align_emulator(CausalLM& full, CausalLM& emulator, AlignJob const& job) {
  auto const original = middle_parameters(emulator, job.plan);
  TensorMap learnt;
  for (auto const& [name, tensor] : original) {
    auto own = tensor.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    emulator.set_parameter(name, own.set_requires_grad(true));
    learnt.emplace(name, own);
  }
  Pair const pair(full, emulator, job.plan);
  AlignResult result;
  result.before = judge(pair, job.judged, job.batch);
  take_steps(pair, learnt, absent_weights(original, job.plan), job);
  for (auto const& [name, tensor] : learnt) {
    auto const values = tensor.detach().to(original.at(name).scalar_type());
    FSLLM_CHECK(is_finite(values),
                "{} holds values that are not finite after the emulator's alignment. Lower "
                "llm.offsite_tuning.emu_align.train.optimizer.lr.",
                name);
    emulator.set_parameter(name, values);
    result.blocks.emplace(name, values);
  }
  result.after = judge(pair, job.judged, job.batch);
  return result;
}

void write_middle(std::filesystem::path const& file, EmulatorPlan const& plan, TensorMap const& blocks) {
  TensorMap named;
  for (auto const& [name, tensor] : blocks) named.emplace(plan.full_name(name), tensor);
  write_safetensors(file, named);
}

TensorMap read_middle(std::filesystem::path const& file, EmulatorPlan const& plan, CausalLM& emulator) {
  SafetensorsReader const reader(file);
  TensorMap blocks;
  auto const middle = middle_parameters(emulator, plan), absent = absent_weights(middle, plan);
  for (auto const& [name, tensor] : middle) {
    auto const full = plan.full_name(name);
    FSLLM_CHECK(
        reader.contains(full) && at::IntArrayRef(reader.shape(full)) == tensor.sizes(),
        "{} holds no {} of this model's shape (it was made for another model or other blocks). Move it "
        "away, or leave llm.offsite_tuning.emu_align.restore_from out.",
        file.string(), full);
    auto const values = reader.tensor(full);
    FSLLM_CHECK(is_finite(values), "{}: {} holds values that are not finite. Move the file away.",
                file.string(), full);
    auto const mask = absent.find(name);
    FSLLM_CHECK(mask == absent.end() || !values.masked_select(mask->second).any().item<bool>(),
                "{}: {} holds weights that are 0 in this run's emulator (it was made with another "
                "llm.offsite_tuning.kwargs[0].sparsity). Move the file away, or set that to its value.",
                file.string(), full);
    blocks.emplace(name, values.to(tensor.scalar_type()));
  }
  FSLLM_CHECK(
      blocks.size() == reader.names().size(),
      "{} holds more than the {} tensors of the emulator's middle blocks (it was made for others). Move "
      "it away, or leave llm.offsite_tuning.emu_align.restore_from out.",
      file.string(), blocks.size());
  return blocks;
}

}  // namespace fsllm
