// SPDX-License-Identifier: Apache-2.0
// How far s B̄ Ā of averaged factors is from the mean of the clients' products, by a sketch that travels in
// the same sum.
#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "factor_rules.hpp"

namespace fsllm {
namespace {

constexpr char const kErrorSketch[] = "error_sketch.";
constexpr int64_t kColumns = 8, kRows = 8;

/// M [out, in] → [8, 8] with E‖·‖_F² = 8 ‖M‖_F²: 8 columns M ω of N(0, 1), whose rows meet, with random
/// signs, in 8 sums (the signs of each column are its own, so that columns are independent).
class ErrorSketch {
 public:
  explicit ErrorSketch(uint64_t seed) : seed_(seed) {}
  at::Tensor of(LowRankTarget const& target, at::Tensor const& b, at::Tensor const& a, int64_t round) {
    if (round != round_) random_.clear();
    round_ = round;
    auto& [omega, signs] = random_[target.module];
    if (!omega.defined()) draw(omega, signs, target, b.size(0), a.size(1));
    auto const columns = b.to(at::kDouble).mm(a.to(at::kDouble).mm(omega)).mul_(target.scale).mul_(signs);
    auto const missing = (kRows - columns.size(0) % kRows) % kRows;
    return at::constant_pad_nd(columns, {0, 0, 0, missing}).view({-1, kRows, kColumns}).sum(0);
  }

 private:
  void draw(at::Tensor& omega, at::Tensor& signs, LowRankTarget const& target, int64_t out,
            int64_t in) const {
    Philox random(seed_, Purpose::sketch, hash_of(target.module), static_cast<uint64_t>(round_), 1);
    omega = normal_matrix(in, kColumns, random);
    signs = at::empty({out, kColumns}, at::kChar);
    Philox bits(seed_, Purpose::sketch, hash_of(target.module), static_cast<uint64_t>(round_), 2);
    auto* const values = signs.mutable_data_ptr<int8_t>();
    for (int64_t i = 0; i < signs.numel(); ++i) values[i] = bits.next_u32() % 2 == 0 ? 1 : -1;
  }

  uint64_t seed_;
  int64_t round_ = -1;
  std::map<std::string, std::pair<at::Tensor, at::Tensor>> random_;
};

/// sqrt(Σ errors / Σ sizes) over independent columns, and its standard error by leaving each out once.
std::pair<double, double> ratio_of(at::Tensor const& errors, at::Tensor const& sizes) {
  double const error = errors.sum().item<double>(), size = sizes.sum().item<double>();
  if (size == 0) return {0, 0};
  double const ratio = std::sqrt(error / size);
  double squares = 0;
  for (int64_t j = 0; j < kColumns; ++j) {
    double const e = error - errors[j].item<double>(), s = size - sizes[j].item<double>();
    double const without = s > 0 ? std::sqrt(std::max(0.0, e) / s) : 0;
    squares += (without - ratio) * (without - ratio);
  }
  return {ratio, std::sqrt(squares * static_cast<double>(kColumns - 1) / static_cast<double>(kColumns))};
}

class MeasuredStep : public SurroundingStep {
 public:
  MeasuredStep(LoraFactors lora, std::unique_ptr<ServerStep> moves)
      : SurroundingStep(std::move(moves)), lora_(std::move(lora)), sketch_(lora_.seed) {}
  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    auto errors = at::zeros({kColumns}, at::kDouble), sizes = at::zeros({kColumns}, at::kDouble);
    auto const mean_of = [&](std::string const& name) {
      auto const value = server.weights.at(name).cpu();
      auto const update = arrived.mean.find(name);
      return update == arrived.mean.end() ? value : value.add(update->second.cpu());
    };
    for (auto const& target : lora_.targets) {
      auto const& exact = arrived.sum.at(kErrorSketch + target.module);
      auto const mean = sketch_.of(target, mean_of(target.b), mean_of(target.a), plan.round);
      errors.add_(exact.sub(mean).square().sum(0));
      sizes.add_(exact.square().sum(0));
    }
    inner->step(server, arrived, plan);
    std::tie(server.facts["aggregation_error"], server.facts["aggregation_error_se"]) =
        ratio_of(errors, sizes);
  }

 private:
  LoraFactors lora_;
  ErrorSketch sketch_;
};

}  // namespace

void measure_aggregation_error(FedAlgorithm& algorithm, LoraFactors const& lora) {
  algorithm.summed = [lora, inner = algorithm.summed](TensorMap const& weights) {
    auto layout = inner ? inner(weights) : TensorMap{};
    for (auto const& target : lora.targets)
      layout.emplace(kErrorSketch + target.module, at::zeros({kRows, kColumns}, at::kDouble));
    return layout;
  };
  auto const sketch = std::make_shared<ErrorSketch>(lora.seed);
  algorithm.finish = [lora, sketch, inner = algorithm.finish](ClientTurn& turn) {
    auto message = inner(turn);
    for (auto const& target : lora.targets) {
      // What it sends need not be what it has trained.
      auto const own = [&](std::string const& name) {
        return turn.start.at(name).add(turn.update.at(name)).cpu();
      };
      message.sum.emplace(
          kErrorSketch + target.module,
          sketch->of(target, own(target.b), own(target.a), turn.plan.round).mul_(turn.task.weight));
    }
    return message;
  };
  algorithm.server_step = [lora, inner = algorithm.server_step](TensorMap const& weights) {
    return std::make_unique<MeasuredStep>(lora, inner(weights));
  };
}

}  // namespace fsllm
