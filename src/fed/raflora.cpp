// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <set>

#include "factor_rules.hpp"

namespace fsllm {
namespace {

/// Σ_h Σ_{k: r_k ≥ h} (n_k / Σ_{r_k ≥ h} n) s B_k[:, l:h] A_k[l:h, :] as two stacks; h the ranks that occur,
/// l the one before.
Factors by_levels(ClientFactors const& all) {
  std::set<int64_t> ranks;
  for (auto const& client : all.clients) ranks.insert(client.a.size(0));
  std::vector<at::Tensor> left, right;
  int64_t columns = 0, low = 0;
  for (int64_t const high : ranks) {
    double owners = 0;
    for (size_t i = 0; i < all.clients.size(); ++i)
      if (all.clients[i].a.size(0) >= high) owners += all.weights[i];
    for (size_t i = 0; i < all.clients.size(); ++i) {
      auto const& [b, a] = all.clients[i];
      if (a.size(0) < high) continue;
      left.push_back(b.narrow(1, low, high - low).mul(all.target.scale * all.weights[i] / owners));
      right.push_back(a.narrow(0, low, high - low));
      columns += high - low;
    }
    low = high;
  }
  if (auto const missing = all.rank - columns; missing > 0) {
    left.push_back(at::zeros({left.front().size(0), missing}, at::kDouble));
    right.push_back(at::zeros({missing, right.front().size(1)}, at::kDouble));
  }
  return {at::cat(left, 1), at::cat(right, 0)};
}

}  // namespace

/// raFLoRA (arXiv 2602.13486): each part of the ranks is averaged over the clients that have it; the best
/// rank r of the sum, Σ in equal parts.
void raflora(Config&, std::string const& rule, FedAlgorithm& algorithm) {
  if (rule != "raflora") return;
  gather_factors(algorithm, [](ClientFactors const& all) {
    auto const [left, right] = by_levels(all);
    return NewFactors{balanced_factors(svd_of_product(left, right), all.rank, all.target.scale), {}};
  });
}

}  // namespace fsllm
