// SPDX-License-Identifier: Apache-2.0
// How the factors of LoRA, W + s B A, are averaged: the mean of the products is not the product of the means.
#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "factor_rules.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// PEFT's names: "….lora_A.weight", "….lora_embedding_B".
bool is_factor(std::string const& name, char factor) {
  return name.find(std::string("lora_") + factor) != std::string::npos ||
         name.find(std::string("lora_embedding_") + factor) != std::string::npos;
}

/// The B that belongs to an A.
std::string partner_of(std::string name) {
  auto const at = name.find("lora_embedding_A");
  return at != std::string::npos ? name.replace(at, 16, "lora_embedding_B")
                                 : name.replace(name.find("lora_A"), 6, "lora_B");
}

/// Moves the factors as the algorithm does, and after every `every` rounds makes A orthonormal, BA unchanged.
class Rebasing : public SurroundingStep {
 public:
  Rebasing(std::unique_ptr<ServerStep> moves, int64_t every)
      : SurroundingStep(std::move(moves)), every_(every) {}
  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    inner->step(server, arrived, plan);
    if ((plan.round + 1) % every_ != 0) return;
    for (auto& [name, a] : server.weights) {
      if (!is_factor(name, 'A')) continue;
      auto& b = server.weights.at(partner_of(name));
      FSLLM_CHECK(
          a.size(0) <= std::min(a.size(1), b.size(0)),
          "federate.lora_aggregation = fedsvd: {} has rank {} (its matrix has {} rows and {} columns). "
          "Lower r, or leave that module out.",
          name, a.size(0), b.size(0), a.size(1));
      auto const factors = orthonormal_factors(svd_of_product(b, a), a.size(0), 1);
      b.copy_(factors.b);
      a.copy_(factors.a);
    }
  }

 private:
  int64_t every_;
};

void both_factors(Config&, std::string const&, FedAlgorithm&) {}

/// Sun et al. 2024, "Improving LoRA in privacy-preserving federated learning" (FFA-LoRA): A stays as it
/// began, so that the mean of BA is (mean of B) A.
void frozen_a(Config&, std::string const& rule, FedAlgorithm& algorithm) {
  if (rule == "ffa") algorithm.rests = [](std::string const& name, int64_t) { return is_factor(name, 'A'); };
}

/// Chen et al. 2025, "Robust federated finetuning of LLMs via alternating optimization of LoRA" (RoLoRA): B
/// in the first round, A in the second, and so on.
void alternating(Config&, std::string const& rule, FedAlgorithm& algorithm) {
  if (rule == "rolora")
    algorithm.rests = [](std::string const& name, int64_t round) {
      return is_factor(name, round % 2 == 0 ? 'A' : 'B');
    };
}

/// FedSVD (Lee et al. 2025): FFA whose A becomes the right singular vectors of BA.
void rebased_a(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  auto const every = config.get<int64_t>("federate.lora_svd_every", 1,
                                         "Rounds between two orthogonalisations of fedsvd.", at_least(1));
  if (rule != "fedsvd") return;
  algorithm.rests = [](std::string const& name, int64_t) { return is_factor(name, 'A'); };
  algorithm.server_step = [every, inner = algorithm.server_step](TensorMap const& weights) {
    return std::make_unique<Rebasing>(inner(weights), every);
  };
}

}  // namespace

std::vector<Row<AlgorithmPart>> const& lora_aggregation_table() {
  static std::vector<Row<AlgorithmPart>> const table{
      {"fedavg", both_factors, "the means of both factors"},
      {"fedask", fedask, "the best rank r of the mean product by a two-stage sketch (FedASK, 2025)"},
      {"fedex", fedex,
       "the means of both factors; the frozen weights take up what the mean product has beside (FedEx-LoRA, "
       "Singhal et al. 2025)"},
      {"fedsb", fedsb,
       "s B R A with fixed A and B, of which the core R alone is trained and averaged (Fed-SB, Singhal et "
       "al. "
       "2025)"},
      {"ffa", frozen_a, "A stays as it began (FFA-LoRA, Sun et al. 2024)"},
      {"flexlora", flexlora, "the best rank r of the mean product by an SVD (FlexLoRA, Bai et al. 2024)"},
      {"flora", flora,
       "the frozen weights take up the mean product, and the factors begin anew (FLoRA, Wang et al. 2024)"},
      {"frlora", frlora,
       "every round begins with the principal factors of the frozen weights, which take up what they learn "
       "(FRLoRA, Yan et al. 2025)"},
      {"hetlora", hetlora,
       "the means of both factors, weighted by the norms of their products (HetLoRA, Cho et al. 2024)"},
      {"raflora", raflora,
       "the best rank r of the product, each rank averaged over the clients that have it (raFLoRA, 2026)"},
      {"fedsvd", rebased_a, "ffa, and A becomes the right singular vectors of BA (Lee et al. 2025)"},
      {"rolora", alternating, "B in one round, A in the next (RoLoRA, Chen et al. 2025)"},
  };
  return table;
}

void lora_aggregation(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  auto const rule = config.get(
      "federate.lora_aggregation", "fedavg",
      "What of LoRA's factors is trained and averaged. " + named_with_meaning(lora_aggregation_table()) + ".",
      one_of(names_of(lora_aggregation_table())));
  for (auto const& row : lora_aggregation_table()) row.build(config, rule, algorithm);
  FSLLM_CHECK(
      !algorithm.makes_factors || method == "fedavg" || method == "fedprox",
      "{} with federate.method = {} (the rule itself makes the next factors of the clients'). Use fedavg "
      "or fedprox.",
      config.where("federate.lora_aggregation"), method);
  algorithm.lora_rule = rule;
  FSLLM_CHECK(rule == "fedavg" || (algorithm.kind != Kind::none && !algorithm.client_state),
              "{} with federate.method = {} ({}). Use one of the two.",
              config.where("federate.lora_aggregation"), method,
              algorithm.kind == Kind::none ? "nothing is sent" : "whose clients keep a state of their own");
}

namespace {

std::vector<std::string> rules_for_unequal_ranks() {
  std::vector<std::string> rules;
  for (auto const& row : lora_aggregation_table()) {
    auto config = Config::parse("", "");
    FedAlgorithm algorithm;
    row.build(config, row.name, algorithm);
    if (algorithm.unequal_ranks) rules.push_back(row.name);
  }
  return rules;
}

}  // namespace

void check_unequal_rank(FedAlgorithm const& algorithm, int64_t client) {
  FSLLM_CHECK(
      algorithm.unequal_ranks,
      "--client_cfg: client_{} has another r or lora_alpha (federate.lora_aggregation = {} averages factors "
      "of one rank and scale). Use one of {}.",
      client, algorithm.lora_rule, fmt::join(rules_for_unequal_ranks(), ", "));
}

void bind_factors(FedAlgorithm& algorithm, LoraFactors const& factors) {
  if (algorithm.makes_factors || algorithm.trains_cores) {
    FSLLM_CHECK(
        !factors.targets.empty(),
        "federate.lora_aggregation = {}: nothing that is trained is a product of factors (DoRA scales it, "
        "other methods have none). Set adapter_method: lora without use_dora, or leave the key out.",
        algorithm.lora_rule);
    for (auto const& target : factors.targets)
      FSLLM_CHECK(
          !algorithm.changes_base || target.a.find("lora_embedding_A") == std::string::npos,
          "federate.lora_aggregation = {}: {} is an embedding (the rule changes the frozen matrices of "
          "linear modules alone). Take it out of target_modules, or use another rule.",
          algorithm.lora_rule, target.module);
  }
  if (algorithm.bind) {
    algorithm.bind(algorithm, factors);
    return;
  }
  bool const factors_are_sent = algorithm.kind == Kind::sum && algorithm.transforms.empty() &&
                                algorithm.local_param.empty() && !algorithm.planned_sums;
  if (factors_are_sent && !factors.targets.empty()) measure_aggregation_error(algorithm, factors);
}

}  // namespace fsllm
