// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>

#include "fsllm/fed/algorithm.hpp"

namespace fsllm {
namespace {

/// McMahan et al. 2017, algorithm 1: w ← Σ p_k w_k, written as w + Σ p_k (w_k - w).
struct FedAvg : FedAlgorithm {
  void server_step(TensorMap& global, TensorMap const& mean_update, int64_t) override {
    for (auto& [name, tensor] : global) tensor.add_(mean_update.at(name));
  }
};

}  // namespace

std::unique_ptr<FedAlgorithm> make_fedavg(FedConfig const&, TensorMap const&) {
  return std::make_unique<FedAvg>();
}

}  // namespace fsllm
