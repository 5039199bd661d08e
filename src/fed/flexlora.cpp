// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>

#include "factor_rules.hpp"

namespace fsllm {
namespace {

/// The least rank whose squared singular values sum up to `share` of all (FLoRIST, MLSys 2026).
int64_t rank_of_energy(at::Tensor const& s, double share) {
  auto const squares = s.square();
  double const all = squares.sum().item<double>();
  double sum = 0;
  int64_t rank = 0;
  while (rank < s.size(0) && sum < share * all) sum += squares[rank++].item<double>();
  return rank;
}

}  // namespace

/// Bai et al. 2024, "Federated fine-tuning of large language models under heterogeneous tasks and client
/// resources" (FlexLoRA): Σ p_k s_k B_k A_k = UΣVᵀ; B = U_r Σ_r / s, A = V_rᵀ.
void flexlora(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  double const energy =
      config.get("federate.lora_energy", 1.0,
                 "flexlora keeps the least rank whose squared singular values sum up to this share of all "
                 "(FLoRIST); at most r. 1: rank r.",
                 within(0, 1));
  if (rule != "flexlora") return;
  gather_factors(algorithm, [energy](ClientFactors const& all) {
    auto const stacked = all.stacked();
    auto const svd = svd_of_product(stacked.b, stacked.a);
    auto factors = orthonormal_factors(svd, all.rank, all.target.scale);
    if (energy < 1) {
      auto const kept = std::min(all.rank, rank_of_energy(svd.s, energy));
      factors.b.narrow(1, kept, all.rank - kept).zero_();
    }
    return NewFactors{factors, {}};
  });
}

}  // namespace fsllm
