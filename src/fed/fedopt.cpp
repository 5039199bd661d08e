// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>

#include <cmath>

#include "fsllm/fed/algorithm.hpp"
#include "fsllm/train/optimizer.hpp"

namespace fsllm {
namespace {

/// Keys `fedopt.*`.
struct FedOptConfig {
  OptimizerConfig optimizer;
  bool annealing = false;
  int64_t annealing_step_size = 2000;
  double annealing_gamma = 0.5;
};

/// Reddi et al. 2021, algorithm 2, with an optimiser of LibTorch on the gradient w - Σ p_k w_k, as FS-LLM
/// does.
class ServerOptimizer : public ServerStep {
 public:
  ServerOptimizer(FedOptConfig const& config, TensorMap const& layout)
      : config_(config), weights_(clone(layout)), optimizer_(config.optimizer, weights_) {}

  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    copy_values(weights_, server.weights);
    for (auto& [name, tensor] : weights_) tensor.mutable_grad() = arrived.mean.at(name).neg();
    optimizer_.set_lr(learning_rate(plan.round));
    optimizer_.step();
    copy_values(server.weights, weights_);
  }
  TensorMap state() const override { return optimizer_.state(); }
  void load_state(TensorMap const& state) override { optimizer_.load_state(state); }

 private:
  double learning_rate(int64_t round) const {
    if (!config_.annealing) return config_.optimizer.lr;
    int64_t const lowerings = round / config_.annealing_step_size;
    return config_.optimizer.lr * std::pow(config_.annealing_gamma, static_cast<double>(lowerings));
  }

  FedOptConfig config_;
  TensorMap weights_;
  Optimizer optimizer_;
};

}  // namespace

void fedopt(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  FedOptConfig c;
  bool const use = config.get("fedopt.use", false,
                              "Apply a server optimiser to the mean update (FedOpt, Reddi et al. 2021).");
  c.optimizer = load_optimizer_config(config, "fedopt.optimizer", 0.01);
  c.annealing = config.get("fedopt.annealing", false, "Lower the server's learning rate in steps.");
  c.annealing_step_size =
      config.get<int64_t>("fedopt.annealing_step_size", 2000, "Rounds between two lowerings.", at_least(1));
  c.annealing_gamma = config.get("fedopt.annealing_gamma", 0.5, "Factor of each lowering.", more_than(0));
  if (use || method == "fedopt")
    algorithm.server_step = [c](TensorMap const& weights) {
      return std::make_unique<ServerOptimizer>(c, weights);
    };
}

}  // namespace fsllm
