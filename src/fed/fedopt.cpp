// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>

#include <cmath>

#include "fsllm/fed/algorithm.hpp"

namespace fsllm {
namespace {

/// Reddi et al. 2021, algorithm 2, with an optimiser of LibTorch on the gradient w - Σ p_k w_k, as FS-LLM
/// does.
class FedOpt : public FedAlgorithm {
 public:
  FedOpt(FedConfig const& config, TensorMap const& layout)
      : config_(config), weights_(clone(layout)), optimizer_(config.server_optimizer, weights_) {}

  void server_step(TensorMap& global, TensorMap const& mean_update, int64_t round) override {
    copy_values(weights_, global);
    for (auto& [name, tensor] : weights_) tensor.mutable_grad() = mean_update.at(name).neg();
    optimizer_.set_lr(learning_rate(round));
    optimizer_.step();
    copy_values(global, weights_);
  }
  std::string state() const override { return optimizer_.state(); }
  void load_state(std::string const& bytes) override { optimizer_.load_state(bytes); }

 private:
  double learning_rate(int64_t round) const {
    if (!config_.server_lr_annealing) return config_.server_optimizer.lr;
    int64_t const lowerings = round / config_.annealing_step_size;
    return config_.server_optimizer.lr * std::pow(config_.annealing_gamma, static_cast<double>(lowerings));
  }

  FedConfig config_;
  TensorMap weights_;
  Optimizer optimizer_;
};

}  // namespace

std::unique_ptr<FedAlgorithm> make_fedopt(FedConfig const& config, TensorMap const& layout) {
  return std::make_unique<FedOpt>(config, layout);
}

}  // namespace fsllm
