// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

/// Nothing is sent: a client's parameters are its own state.
void local_training(Config&, std::string const& method, FedAlgorithm& algorithm) {
  if (method != "local") return;
  algorithm.kind = Kind::none;
  algorithm.samples = false;
  algorithm.personal = true;
  algorithm.client_state = [](TensorMap const& weights) { return weights; };
  algorithm.start = [](ServerState const&, TensorMap const& state) { return state; };
  algorithm.finish = [](ClientTurn& turn) {
    turn.state = clone(turn.parameters);
    return Message{};
  };
}

}  // namespace fsllm
