// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/diag.h>

#include "factor_rules.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {
namespace {

/// The best rank r of what the first step of full fine-tuning would add to W is s B R A with B = U_r, R =
/// Σ_r / s and A = V_rᵀ (LoRA-SB, Ponkshe et al. 2024, algorithm 1). The paper takes -η sign(G) for that
/// step, which is what Adam takes but for its ε.
void begin_with_first_update(LoraFactors const& lora, ServerState& server, TensorMap& fixed,
                             TensorMap const& gradients) {
  for (auto const& target : lora.targets) {
    auto& core = server.weights.at(target.core);
    auto const svd = largest_of(lora.first_update(gradients.at(target.module)).cpu(), core.size(0),
                                {lora.seed, Purpose::sketch, hash_of(target.module)});
    core.copy_(at::diag(svd.s.div(target.scale)));
    fixed.at(target.b).copy_(svd.u);
    fixed.at(target.a).copy_(svd.vt);
  }
}

/// B (Σ p_k R_k) A is the mean of the products: nothing is left to measure.
struct ExactStep : SurroundingStep {
  using SurroundingStep::SurroundingStep;
  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    inner->step(server, arrived, plan);
    server.facts["aggregation_error"] = 0;
  }
};

void bind_cores(FedAlgorithm& algorithm, LoraFactors const& lora) {
  algorithm.fix_factors = [lora](ServerState& server, TensorMap& fixed, TensorMap const& gradients) {
    begin_with_first_update(lora, server, fixed, gradients);
  };
  bool const averages = algorithm.kind == Kind::sum && algorithm.transforms.empty();
  if (averages)
    algorithm.server_step = [inner = algorithm.server_step](TensorMap const& weights) {
      return std::make_unique<ExactStep>(inner(weights));
    };
}

}  // namespace

/// Fed-SB (Singhal et al. 2025, "Fed-SB: a silver bullet for extreme communication efficiency and performance
/// in (private) federated LoRA fine-tuning"): the core is averaged as any parameter is, and the product with
/// it.
void fedsb(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  if (rule != "fedsb") return;
  FSLLM_CHECK(
      !config.has("llm.adapter.init_from") || config.text("llm.adapter.init_from") == "",
      "{} = fedsb with llm.adapter.init_from (its fixed factors follow from the first gradient). Leave "
      "one of them out.",
      config.where("federate.lora_aggregation"));
  algorithm.trains_cores = true;
  algorithm.bind = bind_cores;
}

}  // namespace fsllm
