// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/scalar_tensor.h>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/algorithm.hpp"

namespace fsllm {
namespace {

/// Keys `fedswa.*`.
struct FedSwaConfig {
  int64_t start = 30, every = 10;  ///< rounds
};

/// Beside the global weights, which it does not touch, their running mean: w̄ ← (n w̄ + w) / (n + 1).
class WeightAveraging : public SurroundingStep {
 public:
  WeightAveraging(std::unique_ptr<ServerStep> moves, FedSwaConfig const& config, TensorMap const& layout)
      : SurroundingStep(std::move(moves)), config_(config), mean_(clone(layout)) {}

  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    inner->step(server, arrived, plan);
    int64_t const beyond = plan.round + 1 - config_.start;
    if (beyond < 0 || beyond % config_.every != 0) return;
    ++models_;
    for (auto& [name, mean] : mean_)
      mean.add_(server.weights.at(name).sub(mean), 1.0 / static_cast<double>(models_));
  }
  TensorMap state() const override {
    auto state = inner->state();
    state.emplace("swa_models", at::scalar_tensor(models_, at::kLong));
    if (models_ > 0)
      for (auto const& [name, mean] : mean_) state.emplace("swa." + name, mean);
    return state;
  }
  void load_state(TensorMap const& state) override {
    auto rest = state;
    models_ = rest.extract("swa_models").mapped().item<int64_t>();
    for (auto& [name, mean] : mean_)
      if (models_ > 0) mean.copy_(rest.extract("swa." + name).mapped());
    inner->load_state(rest);
  }
  WeightAverage average() const override { return {models_, mean_}; }

 private:
  FedSwaConfig config_;
  int64_t models_ = 0;
  TensorMap mean_;
};

}  // namespace

/// FS-LLM's FedSWA, stochastic weight averaging (Izmailov et al. 2018, equation 1) of the global model: the
/// mean of w after rounds start_rnd, start_rnd + freq, … Clients never see it; the run is judged by it once
/// more when it ends.
void fedswa(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  FedSwaConfig c;
  bool const use = config.get("fedswa.use", false,
                              "Keep a mean of the global weights of some rounds, by which the run is judged "
                              "too when it ends (swa/).");
  c.start = config.get<int64_t>("fedswa.start_rnd", 30, "The first round whose weights go into the mean.",
                                at_least(1));
  c.every =
      config.get<int64_t>("fedswa.freq", 10, "Rounds from one model of the mean to the next.", at_least(1));
  if (!use) return;
  FSLLM_CHECK(algorithm.kind != Kind::none && !algorithm.personal,
              "{} with federate.method = {} ({}). Use one of the two.", config.where("fedswa.use"), method,
              algorithm.kind == Kind::none ? "there is no global model"
                                           : "whose clients are judged by parameters of their own");
  auto const& rule = algorithm.lora_rule;
  FSLLM_CHECK(
      rule == "fedavg" || rule == "ffa" || rule == "rolora",
      "{} with federate.lora_aggregation = {} (it changes the factors between rounds, so that their mean "
      "means nothing). Use one of the two.",
      config.where("fedswa.use"), rule);
  algorithm.averages_from = c.start;
  algorithm.server_step = [c, inner = algorithm.server_step](TensorMap const& weights) {
    return std::make_unique<WeightAveraging>(inner(weights), c, weights);
  };
}

}  // namespace fsllm
