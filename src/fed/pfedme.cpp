// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/algorithm.hpp"
#include "personal_keys.hpp"

namespace fsllm {
namespace {

/// w ← (1 - β) w + β Σ p_k w_k: β of the mean update, whatever the server does with that.
class Interpolation : public SurroundingStep {
 public:
  Interpolation(std::unique_ptr<ServerStep> moves, double beta)
      : SurroundingStep(std::move(moves)), beta_(beta) {}
  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    Message part;
    for (auto const& [name, mean] : arrived.mean) part.mean.emplace(name, mean.mul(beta_));
    inner->step(server, part, plan);
  }

 private:
  double beta_;
};

/// w_k ← w_k - η λ (w_k - θ).
void move_towards(TensorMap& w, TensorMap const& theta, double rate) {
  for (auto& [name, tensor] : w) tensor.add_(theta.at(name).detach().sub(tensor), rate);
}

/// Of F_k(θ) + λ/2 ‖θ - w_k‖² in θ; and after each K steps on one batch w_k moves. While its client trains,
/// the client's state is w_k, which begins as the global model and θ too.
GradientHook envelope(ClientTurn const& turn, int64_t steps, double weight) {
  turn.state = clone(turn.start);
  return [&w = turn.state, steps, weight, rate = turn.lr * weight,
          taken = int64_t{0}](TensorMap const& theta) mutable {
    at::NoGradGuard const no_grad;
    if (taken > 0 && taken % steps == 0) move_towards(w, theta, rate);
    ++taken;
    for (auto const& [name, tensor] : theta)
      if (tensor.grad().defined()) tensor.mutable_grad().add_(tensor.sub(w.at(name)), weight);
  };
}

}  // namespace

/// T. Dinh et al. 2020, "Personalized federated learning with Moreau envelopes", algorithm 1. θ goes on from
/// batch to batch, as in the authors' program; a client's θ_k is what it is judged by.
void pfedme(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  auto const [weight, lr] = load_personal_keys(config);
  auto const steps =
      config.get<int64_t>("personalization.K", 5, "pFedMe: steps of θ on each batch.", at_least(1));
  double const beta =
      config.get("personalization.beta", 1.0, "pFedMe's β: the server moves by this part of the mean update.",
                 more_than(0));
  if (method != "pfedme") return;
  FSLLM_CHECK(weight > 0, "{} = 0 (pFedMe's global model would never move). Set it above 0.",
              config.where("personalization.regular_weight"));
  algorithm.personal = algorithm.keeps_model = true;
  algorithm.client_state = [](TensorMap const& weights) { return weights; };
  algorithm.parts = {{Trained::all, [steps, lr = lr](TrainConfig& train) {
                        train.steps_per_batch = steps;
                        if (lr > 0) train.optimizer.lr = lr;
                      }}};
  algorithm.gradients.push_back(
      [steps, weight = weight](ClientTurn const& turn) { return envelope(turn, steps, weight); });
  algorithm.finish = [weight = weight](ClientTurn& turn) {
    move_towards(turn.state, turn.parameters, turn.lr * weight);
    turn.update = subtract(turn.state, turn.start);
    turn.state = clone(turn.parameters);
    return Message{turn.update, {}};
  };
  algorithm.server_step = [beta, inner = algorithm.server_step](TensorMap const& weights) {
    return std::make_unique<Interpolation>(inner(weights), beta);
  };
}

}  // namespace fsllm
