// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "factor_rules.hpp"

namespace fsllm {
namespace {

constexpr char const *kSketch = "sketch.", *kBasis = "basis.", *kProjected = "projected.";

/// The random columns Ω [in, q] of each target, of one round at a time.
class Sketches {
 public:
  Sketches(LoraFactors lora, int64_t oversampling) : lora_(std::move(lora)), oversampling_(oversampling) {}
  int64_t columns(TensorMap const& weights, LowRankTarget const& target) const {
    auto const &a = weights.at(target.a), &b = weights.at(target.b);
    return std::min({a.size(0) + oversampling_, a.size(1), b.size(0)});
  }
  at::Tensor const& of(LowRankTarget const& target, TensorMap const& weights, int64_t round) {
    if (round != round_) omega_.clear();
    round_ = round;
    auto& omega = omega_[target.module];
    if (!omega.defined())
      omega =
          normal_matrix(weights.at(target.a).size(1), columns(weights, target),
                        {lora_.seed, Purpose::sketch, hash_of(target.module), static_cast<uint64_t>(round)});
    return omega;
  }

 private:
  LoraFactors lora_;
  int64_t oversampling_, round_ = -1;
  std::map<std::string, at::Tensor> omega_;
};

/// The best factors of rank r of Q Zᵀ; what that leaves of Q Zᵀ is aggregation_error.
class SketchStep : public ServerStep {
 public:
  explicit SketchStep(LoraFactors lora) : lora_(std::move(lora)) {}
  void step(ServerState& server, Message const& arrived, RoundPlan const&) override {
    double left = 0, all = 0;
    for (auto const& target : lora_.targets) {
      auto const svd = svd_of_product(arrived.mean.at(kBasis + target.module),
                                      arrived.mean.at(kProjected + target.module).t());
      auto& a = server.weights.at(target.a);
      auto const factors = balanced_factors(svd, a.size(0), target.scale);
      a.copy_(factors.a);
      server.weights.at(target.b).copy_(factors.b);
      auto const squares = svd.s.square();
      all += squares.sum().item<double>();
      left += squares.slice(0, a.size(0)).sum().item<double>();
    }
    server.facts["aggregation_error"] = all > 0 ? std::sqrt(left / all) : 0;
    for (auto& [name, tensor] : server.weights)
      if (auto const mean = arrived.mean.find(name); mean != arrived.mean.end()) tensor.copy_(mean->second);
  }

 private:
  LoraFactors lora_;
};

/// Parameters beside the factors.
TensorMap others(TensorMap all, LoraFactors const& lora) {
  for (auto const& target : lora.targets) {
    all.erase(target.a);
    all.erase(target.b);
  }
  return all;
}

/// Y_k = s_k B_k (A_k Ω) for the first sum; the factors stay for the second.
Message sketched(LoraFactors const& lora, Sketches& sketches, ClientTurn const& turn) {
  auto const parameters = moved(folded_parameters(lora, turn), at::kCPU);
  Message message{others(parameters, lora), {}, {}};
  for (auto const& target : lora.targets) {
    auto const &a = parameters.at(target.a), &b = parameters.at(target.b);
    auto const& omega = sketches.of(target, parameters, turn.plan.round);
    message.mean.emplace(kSketch + target.module,
                         b.to(at::kDouble).mm(a.to(at::kDouble).mm(omega)).mul_(target.scale));
    message.kept.emplace(target.a, a);
    message.kept.emplace(target.b, b);
  }
  return message;
}

/// Q of Y = QR; Z_k = s_k A_kᵀ (B_kᵀ Q).
SecondSum projection(LoraFactors const& lora) {
  SecondSum second;
  second.basis = [lora](TensorMap const& means) {
    TensorMap basis;
    for (auto const& target : lora.targets)
      basis.emplace(kBasis + target.module, std::get<0>(at::linalg_qr(means.at(kSketch + target.module))));
    return basis;
  };
  second.project = [lora](TensorMap const& basis, TensorMap const& kept) {
    TensorMap projected;
    for (auto const& target : lora.targets) {
      auto const a = kept.at(target.a).to(at::kDouble), b = kept.at(target.b).to(at::kDouble);
      projected.emplace(kProjected + target.module,
                        a.t().mm(b.t().mm(basis.at(kBasis + target.module))).mul_(target.scale));
    }
    return projected;
  };
  second.layout = [lora](TensorMap const& basis, TensorMap const& weights) {
    TensorMap layout;
    for (auto const& target : lora.targets)
      layout.emplace(
          kProjected + target.module,
          at::zeros({weights.at(target.a).size(1), basis.at(kBasis + target.module).size(1)}, at::kDouble));
    return layout;
  };
  return second;
}

}  // namespace

/// FedASK (arXiv 2507.09990, algorithm 1, without its noise): Σ p_k s_k B_k A_k by a two-stage sketch of r +
/// p columns, Y = Σ p_k s_k B_k (A_k Ω), Q = qr(Y), Z = Σ p_k s_k A_kᵀ (B_kᵀ Q); the best rank r of Q Zᵀ, Σ
/// in equal parts. Exact where r + p ≥ Σ r_k; the server's work does not depend on the number of clients.
void fedask(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  auto const oversampling = config.get<int64_t>("federate.lora_oversampling", 8,
                                                "Columns of fedask's sketch beside r.", at_least(0));
  if (rule != "fedask") return;
  algorithm.unequal_ranks = true;
  algorithm.makes_factors = true;
  algorithm.bind = [oversampling](FedAlgorithm& bound, LoraFactors const& lora) {
    fit_ranks(bound, lora);
    auto const sketches = std::make_shared<Sketches>(lora, oversampling);
    bound.averaged = [lora, sketches](TensorMap const& weights) {
      auto layout = others(weights, lora);
      for (auto const& target : lora.targets)
        layout.emplace(
            kSketch + target.module,
            at::zeros({weights.at(target.b).size(0), sketches->columns(weights, target)}, at::kDouble));
      return layout;
    };
    bound.finish = [lora, sketches](ClientTurn& turn) { return sketched(lora, *sketches, turn); };
    bound.second = projection(lora);
    bound.server_step = [lora](TensorMap const&) { return std::make_unique<SketchStep>(lora); };
  };
}

}  // namespace fsllm
