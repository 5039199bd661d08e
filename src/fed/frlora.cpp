// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>

#include "factor_rules.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {
namespace {

/// [B, -B'] and [A; A'] times s: s (B A - B' A').
void add_change(ServerState& server, LowRankTarget const& target, at::Tensor const& left,
                at::Tensor const& right) {
  server.base_change.emplace(target.module + ".left", left.mul(target.scale));
  server.base_change.emplace(target.module + ".right", right);
}

/// W += s (B̄ Ā - B_0 A_0); the factors, which every round begins with, stay.
class ResidualStep : public ServerStep {
 public:
  explicit ResidualStep(LoraFactors lora) : lora_(std::move(lora)) {}
  void step(ServerState& server, Message const& arrived, RoundPlan const&) override {
    auto mean = arrived.mean;
    for (auto const& target : lora_.targets) {
      auto const &a = server.weights.at(target.a), &b = server.weights.at(target.b);
      add_change(server, target, at::cat({b.add(mean.at(target.b)), b.neg()}, 1),
                 at::cat({a.add(mean.at(target.a)), a}, 0));
      mean.erase(target.a);
      mean.erase(target.b);
    }
    for (auto const& [name, update] : mean) server.weights.at(name).add_(update);
  }

 private:
  LoraFactors lora_;
};

/// Factors of the largest singular values of W0, which then is without them.
void begin_with_principal(LoraFactors const& lora, ServerState& server) {
  for (auto const& target : lora.targets) {
    auto &a = server.weights.at(target.a), &b = server.weights.at(target.b);
    auto const svd = largest_of(lora.matrix(target.module), a.size(0),
                                {lora.seed, Purpose::sketch, hash_of(target.module)});
    auto const factors = balanced_factors(svd, a.size(0), target.scale);
    a.copy_(factors.a);
    b.copy_(factors.b);
    add_change(server, target, b.neg(), a.clone());
  }
}

}  // namespace

/// FRLoRA (Yan et al. 2025, "Federated residual low-rank adaption of large language models", algorithm 1):
/// all clients begin each round with the principal factors of W0, and the frozen matrix takes up what they
/// learn.
void frlora(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  if (rule != "frlora") return;
  FSLLM_CHECK(!config.has("llm.adapter.init_from") || config.text("llm.adapter.init_from") == "",
              "{} = frlora with llm.adapter.init_from (its factors begin as those of the model's own "
              "matrices). Leave "
              "one of them out.",
              config.where("federate.lora_aggregation"));
  algorithm.changes_base = true;
  algorithm.makes_factors = true;
  algorithm.bind = [](FedAlgorithm& bound, LoraFactors const& lora) {
    bound.begin = [lora](ServerState& server) { begin_with_principal(lora, server); };
    bound.server_step = [lora](TensorMap const&) { return std::make_unique<ResidualStep>(lora); };
    measure_aggregation_error(bound, lora);
  };
}

}  // namespace fsllm
