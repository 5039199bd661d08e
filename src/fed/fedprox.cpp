// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

/// Li et al. 2020, section 3.2: each client minimises F_k(w) + μ/2 ‖w - w_t‖², whose second part adds μ (w -
/// w_t) to the gradient.
void fedprox(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  bool const use =
      config.get("fedprox.use", false,
                 "Add the proximal term mu/2 |w - w_t|^2 to every client's loss (FedProx, Li et al. 2020).");
  double const mu = config.get("fedprox.mu", 0.0, "Weight of the proximal term.", at_least(0));
  if (!use && method != "fedprox") return;
  algorithm.gradients.push_back([mu](ClientTurn const& turn) {
    return [mu, start = turn.start](TensorMap const& parameters) {
      at::NoGradGuard const no_grad;
      for (auto const& [name, tensor] : parameters)
        if (tensor.grad().defined()) tensor.mutable_grad().add_(tensor.sub(start.at(name)), mu);
    };
  });
}

}  // namespace fsllm
