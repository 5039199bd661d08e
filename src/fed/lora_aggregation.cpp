// SPDX-License-Identifier: Apache-2.0
// How the factors of LoRA, W + s B A, are averaged: the mean of the products is not the product of the means.
#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/where.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/algorithm.hpp"

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

/// BA of rank r as B' = U_r Σ_r [out, r] and A' = V_rᵀ [r, in], from the factors alone: QR of both and an SVD
/// of [r, r] in float64; of each singular pair the largest element of A' is positive.
std::pair<at::Tensor, at::Tensor> orthogonal_factors(at::Tensor const& b, at::Tensor const& a) {
  auto const [qb, rb] = at::linalg_qr(b.to(at::kDouble));
  auto const [qa, ra] = at::linalg_qr(a.to(at::kDouble).t());
  auto const [u, s, vt] = at::linalg_svd(rb.mm(ra.t()), /*full_matrices=*/false);
  auto rows = vt.mm(qa.t());
  auto const largest = rows.gather(1, rows.abs().argmax(1, /*keepdim=*/true));
  auto const sign = at::where(largest.lt(0), -1.0, 1.0);
  return {qb.mm(u).mul(s).mul(sign.t()), rows.mul(sign)};
}

/// Moves the factors as the algorithm does, and after every `every` rounds makes A orthonormal, BA unchanged.
class Rebasing : public ServerStep {
 public:
  Rebasing(std::unique_ptr<ServerStep> inner, int64_t every) : inner_(std::move(inner)), every_(every) {}
  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    inner_->step(server, arrived, plan);
    if ((plan.round + 1) % every_ != 0) return;
    for (auto& [name, a] : server.weights) {
      if (!is_factor(name, 'A')) continue;
      auto& b = server.weights.at(partner_of(name));
      FSLLM_CHECK(
          a.size(0) <= std::min(a.size(1), b.size(0)),
          "federate.lora_aggregation = fedsvd: {} has rank {} (its matrix has {} rows and {} columns). "
          "Lower r, or leave that module out.",
          name, a.size(0), b.size(0), a.size(1));
      auto const [new_b, new_a] = orthogonal_factors(b, a);
      b.copy_(new_b);
      a.copy_(new_a);
    }
  }
  TensorMap state() const override { return inner_->state(); }
  void load_state(TensorMap const& state) override { inner_->load_state(state); }

 private:
  std::unique_ptr<ServerStep> inner_;
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
      {"ffa", frozen_a, "A stays as it began (FFA-LoRA, Sun et al. 2024)"},
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
  FSLLM_CHECK(rule == "fedavg" || (algorithm.kind != Kind::none && !algorithm.client_state),
              "{} with federate.method = {} ({}). Use one of the two.",
              config.where("federate.lora_aggregation"), method,
              algorithm.kind == Kind::none ? "nothing is sent" : "whose clients keep a state of their own");
}

}  // namespace fsllm
