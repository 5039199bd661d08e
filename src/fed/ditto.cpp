// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/algorithm.hpp"
#include "personal_keys.hpp"

namespace fsllm {

PersonalKeys load_personal_keys(Config& config) {
  PersonalKeys keys;
  keys.regular_weight =
      config.get("personalization.regular_weight", 0.1,
                 "λ of Ditto and pFedMe: how strongly clients' own models are held near the "
                 "global one (pFedMe: near the client's w_k; its authors take 15).",
                 at_least(0));
  keys.lr = config.get("personalization.lr", 0.0,
                       "Learning rate of clients' own models (Ditto, pFedMe); 0: as train.optimizer.lr.",
                       at_least(0));
  return keys;
}

/// Li et al. 2021, algorithm 1: beside the global model, which is FedAvg's, each client has one of its own,
/// that minimises F_k(v) + λ/2 ‖v - w_t‖² from where its last turn left it.
void ditto(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  auto const [weight, lr] = load_personal_keys(config);
  auto const steps = config.get<int64_t>(
      "personalization.local_update_steps", -1,
      "Steps (or epochs) of a client's own model in a round; -1: as train.local_update_steps.", at_least(-1));
  if (method != "ditto") return;
  FSLLM_CHECK(steps != 0, "{} = 0 (clients' own models would never be trained). Set it to -1 or above 0.",
              config.where("personalization.local_update_steps"));
  algorithm.personal = true;
  algorithm.client_state = [](TensorMap const& weights) { return weights; };
  algorithm.keeps_model = true;
  algorithm.personal_training = PersonalTraining{};
  algorithm.personal_training->part.adjust = [steps, lr = lr](TrainConfig& train) {
    if (steps > 0) train.local_update_steps = steps;
    if (lr > 0) train.optimizer.lr = lr;
  };
  algorithm.personal_training->gradients.push_back([weight = weight](ClientTurn const& turn) {
    return [weight, global = moved(turn.server.weights, turn.parameters.begin()->second.device())](
               TensorMap const& parameters) {
      at::NoGradGuard const no_grad;
      for (auto const& [name, tensor] : parameters)
        if (tensor.grad().defined()) tensor.mutable_grad().add_(tensor.sub(global.at(name)), weight);
    };
  });
}

}  // namespace fsllm
