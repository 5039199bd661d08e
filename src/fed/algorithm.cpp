// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

std::vector<Row<AlgorithmBuilder>> const& algorithm_table() {
  static std::vector<Row<AlgorithmBuilder>> const table{
      {"fedavg", make_fedavg, "global += mean update (McMahan et al. 2017)"},
      {"fedopt", make_fedopt, "a server optimiser takes the mean update as its gradient (Reddi et al. 2021)"},
  };
  return table;
}

std::unique_ptr<FedAlgorithm> make_algorithm(FedConfig const& config, TensorMap const& layout) {
  // "local" and "global" differ in who trains on what; where updates meet, they are averaged.
  bool const averaged = config.method == "local" || config.method == "global";
  auto const name = config.fedopt ? "fedopt" : averaged ? "fedavg" : config.method;
  return find_row(algorithm_table(), name, "federate.method").build(config, layout);
}

}  // namespace fsllm
