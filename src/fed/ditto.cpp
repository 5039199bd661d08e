// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

/// Li et al. 2021, algorithm 1: beside the global model, which is FedAvg's, each client has one of its own,
/// that minimises F_k(v) + λ/2 ‖v - w_t‖² from where its last turn left it.
void ditto(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  double const weight =
      config.get("personalization.regular_weight", 0.1,
                 "Ditto's λ: how strongly clients' own models are held near the global one.", at_least(0));
  auto const steps = config.get<int64_t>(
      "personalization.local_update_steps", -1,
      "Steps (or epochs) of a client's own model in a round; -1: as train.local_update_steps.", at_least(-1));
  double const lr =
      config.get("personalization.lr", 0.0, "Learning rate of clients' own models; 0: as train.optimizer.lr.",
                 at_least(0));
  if (method != "ditto") return;
  FSLLM_CHECK(steps != 0, "{} = 0 (clients' own models would never be trained). Set it to -1 or above 0.",
              config.where("personalization.local_update_steps"));
  algorithm.personal = true;
  algorithm.client_state = [](TensorMap const& weights) { return weights; };
  algorithm.keeps_model = true;
  algorithm.personal_training = PersonalTraining{};
  algorithm.personal_training->part.adjust = [steps, lr](TrainConfig& train) {
    if (steps > 0) train.local_update_steps = steps;
    if (lr > 0) train.optimizer.lr = lr;
  };
  algorithm.personal_training->gradients.push_back([weight](ClientTurn const& turn) {
    return [weight, global = moved(turn.server.weights, turn.parameters.begin()->second.device())](
               TensorMap const& parameters) {
      at::NoGradGuard const no_grad;
      for (auto const& [name, tensor] : parameters)
        if (tensor.grad().defined()) tensor.mutable_grad().add_(tensor.sub(global.at(name)), weight);
    };
  });
}

}  // namespace fsllm
