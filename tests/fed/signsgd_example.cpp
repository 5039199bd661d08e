// SPDX-License-Identifier: Apache-2.0
// The worked example of CONTRIBUTING.md ("Adding a federated algorithm"), word for word.
#include <ATen/core/Tensor.h>

#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

struct StepByMajority : ServerStep {
  explicit StepByMajority(double step_) : step_size(step_) {}
  void step(ServerState& server, Message const& arrived, RoundPlan const&) override {
    for (auto& [name, tensor] : server.weights) tensor.add_(arrived.sum.at(name).sign(), step_size);
  }
  double step_size;
};

void signsgd(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  double const step =
      config.get("signsgd.step", 1e-4, "How far the majority moves a parameter.", more_than(0));
  if (method != "signsgd") return;
  algorithm.summed = algorithm.averaged;  // votes have the layout of the weights; nothing is averaged
  algorithm.averaged = {};
  algorithm.finish = [](ClientTurn& turn) {
    Message message;
    for (auto const& [name, tensor] : turn.update) message.sum.emplace(name, tensor.sign());
    return message;
  };
  algorithm.server_step = [step](TensorMap const&) { return std::make_unique<StepByMajority>(step); };
}

}  // namespace fsllm
