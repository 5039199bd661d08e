// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "fsllm/fed/algorithm.hpp"
#include "fsllm/train/optimizer.hpp"

namespace fsllm {
namespace {

/// Keys `fedopt.*`.
struct FedOptConfig {
  OptimizerConfig optimizer;
  double tau = 1e-3;
  bool annealing = false;
  int64_t annealing_step_size = 2000;
  double annealing_gamma = 0.5;
};

double learning_rate(FedOptConfig const& config, int64_t round) {
  if (!config.annealing) return config.optimizer.lr;
  int64_t const lowerings = round / config.annealing_step_size;
  return config.optimizer.lr * std::pow(config.annealing_gamma, static_cast<double>(lowerings));
}

/// Moves v by the squared mean update Δ².
using SecondMoment = void (*)(at::Tensor& v, at::Tensor const& square, double beta2);

/// Reddi et al. 2021, algorithm 2.
std::vector<Row<SecondMoment>> const& adaptive_table() {
  static std::vector<Row<SecondMoment>> const table{
      {"FedAdagrad", [](at::Tensor& v, at::Tensor const& square, double) { v.add_(square); }, "v + Δ²"},
      {"FedAdam",
       [](at::Tensor& v, at::Tensor const& square, double beta2) { v.mul_(beta2).add_(square, 1 - beta2); },
       "β₂ v + (1 - β₂) Δ²"},
      {"FedYogi",
       [](at::Tensor& v, at::Tensor const& square, double beta2) {
         v.sub_(v.sub(square).sign_().mul_(square), 1 - beta2);
       },
       "v - (1 - β₂) Δ² sign(v - Δ²)"},
  };
  return table;
}

/// w += η m / (√v + τ) with m = β₁ m + (1 - β₁) Δ from 0 without correction of its bias, and v from τ².
class AdaptiveServer : public ServerStep {
 public:
  AdaptiveServer(FedOptConfig const& config, TensorMap const& layout)
      : config_(config),
        move_(find_row(adaptive_table(), config.optimizer.type, "fedopt.optimizer.type").build) {
    for (auto const& [name, tensor] : layout) {
      m_.emplace(name, at::zeros_like(tensor, at::MemoryFormat::Contiguous));
      v_.emplace(name, at::full_like(tensor, config.tau * config.tau, at::MemoryFormat::Contiguous));
    }
  }

  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    auto const& c = config_.optimizer;
    for (auto const& [name, delta] : arrived.mean) {
      auto& m = m_.at(name).mul_(c.beta1).add_(delta, 1 - c.beta1);
      auto& v = v_.at(name);
      move_(v, delta.square(), c.beta2);
      server.weights.at(name).add_(m.div(v.sqrt().add_(config_.tau)), learning_rate(config_, plan.round));
    }
  }
  TensorMap state() const override {
    TensorMap state;
    for (auto const& [name, tensor] : m_) state.emplace("m." + name, tensor);
    for (auto const& [name, tensor] : v_) state.emplace("v." + name, tensor);
    return state;
  }
  void load_state(TensorMap const& state) override {
    for (auto& [name, tensor] : m_) tensor.copy_(state.at("m." + name));
    for (auto& [name, tensor] : v_) tensor.copy_(state.at("v." + name));
  }

 private:
  FedOptConfig config_;
  SecondMoment move_;
  TensorMap m_, v_;
};

/// Reddi et al. 2021, algorithm 2, with an optimiser of LibTorch on the gradient w - Σ p_k w_k, as FS-LLM
/// does.
class ServerOptimizer : public ServerStep {
 public:
  ServerOptimizer(FedOptConfig const& config, TensorMap const& layout)
      : config_(config), weights_(clone(layout)), optimizer_(config.optimizer, weights_) {}

  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    copy_values(weights_, server.weights);
    for (auto& [name, tensor] : weights_) {
      auto const mean = arrived.mean.find(name);
      tensor.mutable_grad() = mean == arrived.mean.end() ? at::Tensor() : mean->second.neg();
    }
    optimizer_.set_lr(learning_rate(config_, plan.round));
    optimizer_.step();
    copy_values(server.weights, weights_);
  }
  TensorMap state() const override { return optimizer_.state(); }
  void load_state(TensorMap const& state) override { optimizer_.load_state(state); }

 private:
  FedOptConfig config_;
  TensorMap weights_;
  Optimizer optimizer_;
};

}  // namespace

void fedopt(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  FedOptConfig c;
  bool const use = config.get("fedopt.use", false,
                              "Apply a server optimiser to the mean update (FedOpt, Reddi et al. 2021).");
  bool const diloco = method == "diloco";
  OptimizerDefaults const defaults{.lr = diloco ? 0.7 : 0.01,
                                   .momentum = diloco ? 0.9 : 0.0,
                                   .nesterov = diloco,
                                   .more_types = names_of(adaptive_table())};
  c.optimizer = load_optimizer_config(config, "fedopt.optimizer", defaults);
  c.tau =
      config.get("fedopt.optimizer.tau", 1e-3,
                 "Added to the root of the second moment by FedAdam, FedYogi and FedAdagrad, which begins "
                 "at its square.",
                 more_than(0));
  c.annealing = config.get("fedopt.annealing", false, "Lower the server's learning rate in steps.");
  c.annealing_step_size =
      config.get<int64_t>("fedopt.annealing_step_size", 2000, "Rounds between two lowerings.", at_least(1));
  c.annealing_gamma = config.get("fedopt.annealing_gamma", 0.5, "Factor of each lowering.", more_than(0));
  for (auto const* key : {"annealing_step_size", "annealing_gamma"})
    if (!c.annealing) config.leave_out(std::string("fedopt.") + key);
  auto const& more = defaults.more_types;
  bool const adaptive = std::find(more.begin(), more.end(), c.optimizer.type) != more.end();
  if (!adaptive) config.leave_out("fedopt.optimizer.tau");
  if (!use && method != "fedopt" && !diloco) return;
  algorithm.server_step = [c, adaptive](TensorMap const& weights) -> std::unique_ptr<ServerStep> {
    if (adaptive) return std::make_unique<AdaptiveServer>(c, weights);
    return std::make_unique<ServerOptimizer>(c, weights);
  };
}

}  // namespace fsllm
