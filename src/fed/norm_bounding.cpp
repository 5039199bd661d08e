// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

/// Sun et al. 2019, "Can you really backdoor federated learning?", section 5: Δ_k / max(1, ‖Δ_k‖ / bound),
/// the norm over all parameters that are sent.
void norm_bounding(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  double const bound = config.get("aggregator.BFT_args.normbounding_norm_bound", 0.0,
                                  "L2 norm that normbounding shortens longer updates to.", at_least(0));
  if (rule != "normbounding") return;
  FSLLM_CHECK(
      bound > 0,
      "aggregator.BFT_args.normbounding_norm_bound is 0 (aggregator.robust_rule = normbounding needs a "
      "bound). Set it; update_norm in metrics_clients.jsonl tells how long updates are.");
  algorithm.whole_updates = true;
  algorithm.transforms.push_back([bound](Message& message, ClientTurn const&) {
    double const norm = l2_norm(message.mean);
    if (norm <= bound) return;
    for (auto& [name, tensor] : message.mean) tensor = tensor.mul(bound / norm);
  });
}

}  // namespace fsllm
