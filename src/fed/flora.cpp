// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "factor_rules.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {
namespace {

/// Fresh A of the round, B = 0.
class FreshFactors : public SurroundingStep {
 public:
  FreshFactors(LoraFactors lora, std::unique_ptr<ServerStep> moves)
      : SurroundingStep(std::move(moves)), lora_(std::move(lora)) {}
  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    inner->step(server, arrived, plan);
    auto const round = static_cast<uint64_t>(plan.round) + 1;
    auto const fresh = lora_.fresh(derive_seed(lora_.seed, Purpose::adapter_init, 0, round));
    for (auto const& target : lora_.targets) {
      server.weights.at(target.a).copy_(fresh.at(target.a));
      server.weights.at(target.b).zero_();
    }
  }

 private:
  LoraFactors lora_;
};

}  // namespace

/// Wang et al. 2024, "FLoRA: Federated fine-tuning large language models with heterogeneous low-rank
/// adaptations": W0 += Σ p_k s_k B_k A_k by stacked factors; then A is drawn anew and B = 0.
void flora(Config&, std::string const& rule, FedAlgorithm& algorithm) {
  if (rule != "flora") return;
  gather_factors(algorithm, [](ClientFactors const& all) {
    auto const& [b, a] = all.clients.front();
    return NewFactors{
        {at::zeros({b.size(0), all.rank}, at::kDouble), at::zeros({all.rank, a.size(1)}, at::kDouble)},
        all.stacked()};
  });
  algorithm.changes_base = true;
  algorithm.bind = [gathers = algorithm.bind](FedAlgorithm& bound, LoraFactors const& lora) {
    gathers(bound, lora);
    bound.server_step = [lora, moves = bound.server_step](TensorMap const& weights) {
      return std::make_unique<FreshFactors>(lora, moves(weights));
    };
  };
}

/// Singhal et al. 2025, "FedEx-LoRA: Exact aggregation for federated and efficient fine-tuning of large
/// language models": factors are averaged, and W0 += Σ p_k s_k B_k A_k - s B̄ Ā.
void fedex(Config&, std::string const& rule, FedAlgorithm& algorithm) {
  if (rule != "fedex") return;
  gather_factors(algorithm, [](ClientFactors const& all) {
    // As clients get them: the frozen matrix takes up what float32 leaves, too.
    auto mean = all.mean();
    mean = {mean.b.to(at::kFloat).to(at::kDouble), mean.a.to(at::kFloat).to(at::kDouble)};
    auto const exact = all.stacked();
    return NewFactors{
        mean, Factors{at::cat({exact.b, mean.b.mul(-all.target.scale)}, 1), at::cat({exact.a, mean.a}, 0)}};
  });
  algorithm.changes_base = true;
}

}  // namespace fsllm
