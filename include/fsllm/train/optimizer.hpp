// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// Keys `train.optimizer.*` or `fedopt.optimizer.*`: a LibTorch optimiser and its arguments, with
/// torch.optim's names.
struct OptimizerConfig {
  std::string type;
  double lr = 0.1, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false, amsgrad = false, centered = false;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double alpha = 0.99;  ///< RMSprop's smoothing
  double lr_decay = 0;  ///< Adagrad
};

/// What a use of optimisers has of its own.
struct OptimizerDefaults {
  double lr = 0.1, momentum = 0;
  bool nesterov = false;
  std::vector<std::string> more_types = {};             ///< that the caller makes
  std::vector<std::string> more_arguments = {"betas"};  ///< of these; betas are [0.9, 0.99]
};

/// Reads the keys under `prefix`; an argument that the chosen optimiser does not have is an Error.
OptimizerConfig load_optimizer_config(Config& config, std::string const& prefix,
                                      OptimizerDefaults const& defaults = {});
std::vector<std::string> known_optimizers();

/// An optimiser over live tensors whose gradients stand in grad().
class Optimizer {
 public:
  Optimizer(OptimizerConfig const& config, TensorMap const& parameters);
  ~Optimizer();
  void set_lr(double lr);
  void step();
  void zero_grad();
  /// Momentum, moments and step counts by torch.optim's names ("exp_avg.PARAMETER", "step.PARAMETER"); empty
  /// before the first step. Live tensors.
  TensorMap state() const;
  /// Goes on from these, on the parameters' devices.
  void load_state(TensorMap const& state);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fsllm
