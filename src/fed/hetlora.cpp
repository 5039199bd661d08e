// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>

#include <cmath>

#include "factor_rules.hpp"
#include "fsllm/fed/aggregate.hpp"

namespace fsllm {
namespace {

/// Collective: ω_k, the share of client k in Σ ‖s_k B_k A_k‖_F, norms over all targets together; p_k where
/// all are 0.
std::vector<double> norm_weights(LoraFactors const& lora, GatheredMessages const& all,
                                 Communicator const& comm) {
  std::map<int64_t, std::vector<double>> squares;
  auto number = all.numbers.begin();
  std::map<std::string, int64_t> numbers;
  for (auto const& [name, tensor] : all.messages.front()) numbers[name] = *number++;
  for (auto const& target : lora.targets) {
    auto const found = numbers.find(target.a);
    if (found == numbers.end()) continue;
    for (auto const& message : all.messages)
      squares[found->second].push_back(
          target.scale * target.scale *
          squared_norm({message.at(target.b).to(at::kDouble), message.at(target.a).to(at::kDouble)}));
  }
  auto weights = sum_over_tensors(squares, comm);
  double sum = 0;
  for (auto& weight : weights) sum += weight = std::sqrt(std::max(0.0, weight));
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = sum > 0 ? weights[i] / sum : all.tasks[i].weight;
  return weights;
}

}  // namespace

/// Cho et al. 2024, "Heterogeneous LoRA for federated fine-tuning of on-device foundation models" (HetLoRA,
/// without its pruning): factors padded with zeros to rank r, weighted by the norms of their products.
void hetlora(Config&, std::string const& rule, FedAlgorithm& algorithm) {
  if (rule == "hetlora")
    gather_factors(
        algorithm,
        [](ClientFactors const& all) {
          return NewFactors{all.mean(), {}};
        },
        norm_weights);
}

}  // namespace fsllm
