// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/algorithm.hpp"

#include "fsllm/core/error.hpp"

namespace fsllm {

std::vector<ClientTask> tasks(RoundPlan const& plan) {
  std::vector<ClientTask> all;
  for (auto const& cohort : plan.cohorts) all.insert(all.end(), cohort.begin(), cohort.end());
  return all;
}

std::vector<Row<AlgorithmPart>> const& algorithm_table() {
  static std::vector<Row<AlgorithmPart>> const table{
      {"local", local_training, "every client trains alone"},
      {"global", global_training, "one client holds the rows of all"},
      {"fedavg", fedavg, "global += mean update (McMahan et al. 2017)"},
      {"fedopt", fedopt, "a server optimiser takes the mean update as its gradient (Reddi et al. 2021)"},
      {"fedprox", fedprox, "clients are held near the global model (Li et al. 2020)"},
      {"krum", krum,
       "the mean of the updates that lie closest to the others (aggregator.robust_rule; Blanchard et al. "
       "2017)"},
      {"scaffold", scaffold, "control variates correct the drift of clients (Karimireddy et al. 2020)"},
  };
  return table;
}

FedAlgorithm load_algorithm(Config& config, std::string const& method) {
  FedAlgorithm algorithm;
  for (auto const& row : algorithm_table()) row.build(config, method, algorithm);
  FSLLM_CHECK(!algorithm.combine || (!algorithm.personal && !algorithm.summed),
              "{} with federate.method = {} ({}). Use one of the two.",
              config.where("aggregator.robust_rule"), method,
              algorithm.personal ? "nothing is sent" : "it needs sums of all messages");
  return algorithm;
}

}  // namespace fsllm
