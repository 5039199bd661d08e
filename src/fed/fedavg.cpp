// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>

#include "fsllm/fed/algorithm.hpp"

namespace fsllm {
namespace {

/// w ← Σ p_k w_k, written as w + Σ p_k (w_k - w).
struct AddMean : ServerStep {
  void step(ServerState& server, Message const& arrived, RoundPlan const&) override {
    for (auto const& [name, mean] : arrived.mean) server.weights.at(name).add_(mean);
  }
};

}  // namespace

FedAlgorithm::FedAlgorithm()
    : averaged([](TensorMap const& weights) { return weights; }),
      start([](ServerState const& server, TensorMap const&) { return server.weights; }),
      finish([](ClientTurn& turn) {
        return Message{turn.update, {}};
      }),
      server_step([](TensorMap const&) { return std::make_unique<AddMean>(); }) {}

void fedavg(Config&, std::string const&, FedAlgorithm&) {}

void global_training(Config&, std::string const& method, FedAlgorithm& algorithm) {
  if (method == "global") algorithm.merges = true;
}

}  // namespace fsllm
