// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "fsllm/core/table.hpp"
#include "fsllm/core/tensor_map.hpp"
#include "fsllm/fed/config.hpp"

namespace fsllm {

/// The server's side of a federated algorithm of kind Sum: it sees the weighted mean of the clients' updates.
struct FedAlgorithm {
  virtual ~FedAlgorithm() = default;
  /// Moves the global state by the mean update Σ p_k (w_k - w); rank 0 only.
  virtual void server_step(TensorMap& global, TensorMap const& mean_update, int64_t round) = 0;
  /// State that outlives a round, for checkpoints.
  virtual std::string state() const { return {}; }
  virtual void load_state(std::string const& bytes) {}
};

using AlgorithmBuilder = std::unique_ptr<FedAlgorithm> (*)(FedConfig const&, TensorMap const& layout);

std::unique_ptr<FedAlgorithm> make_fedavg(FedConfig const& config, TensorMap const& layout);
std::unique_ptr<FedAlgorithm> make_fedopt(FedConfig const& config, TensorMap const& layout);

/// One row per value of federate.method.
std::vector<Row<AlgorithmBuilder>> const& algorithm_table();
/// The algorithm of `config`; fedopt.use turns FedAvg into FedOpt.
std::unique_ptr<FedAlgorithm> make_algorithm(FedConfig const& config, TensorMap const& layout);

}  // namespace fsllm
