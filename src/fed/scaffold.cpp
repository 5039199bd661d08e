// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>

#include "fsllm/fed/algorithm.hpp"

namespace fsllm {
namespace {

TensorMap zeros(TensorMap const& weights) {
  TensorMap all;
  for (auto const& [name, tensor] : weights)
    all.emplace(name, at::zeros_like(tensor, at::MemoryFormat::Contiguous));
  return all;
}

/// Moves the weights as the algorithm without control variates does, then c by 1/N Σ (c_k⁺ - c_k).
struct ControlVariates : SurroundingStep {
  using SurroundingStep::SurroundingStep;
  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    inner->step(server, arrived, plan);
    for (auto& [name, tensor] : server.extra)
      tensor.add_(arrived.sum.at(name), 1.0 / static_cast<double>(plan.all_clients));
  }
};

/// Karimireddy et al. 2020, algorithm 1, option II: c_k⁺ = c_k - c + (w - y_k) / Σ η. A client that took no
/// step keeps c_k.
Message finish(ClientTurn& turn) {
  TensorMap change;
  for (auto const& [name, update] : turn.update) {
    auto const c = turn.server.extra.at(name).to(update.device());
    change.emplace(
        name, turn.result.lr_sum > 0 ? c.neg().sub_(update, 1 / turn.result.lr_sum) : at::zeros_like(update));
  }
  for (auto& [name, own] : turn.state) own = own.add(change.at(name));
  return {turn.update, change};
}

}  // namespace

void scaffold(Config&, std::string const& method, FedAlgorithm& algorithm) {
  if (method != "scaffold") return;
  algorithm.client_state = algorithm.server_extra = algorithm.summed = zeros;
  algorithm.gradients.push_back([](ClientTurn const& turn) {
    TensorMap correction;
    for (auto const& [name, own] : turn.state)
      correction.emplace(name, turn.server.extra.at(name).to(own.device()).sub(own));
    return [correction](TensorMap const& parameters) {
      for (auto const& [name, tensor] : parameters)
        if (tensor.grad().defined()) tensor.mutable_grad().add_(correction.at(name));
    };
  });
  algorithm.finish = finish;
  algorithm.server_step = [weights_step = algorithm.server_step](TensorMap const& weights) {
    return std::make_unique<ControlVariates>(weights_step(weights));
  };
}

}  // namespace fsllm
