// SPDX-License-Identifier: Apache-2.0
#include "factor_rules.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

constexpr char const kError[] = "error.";

Factors hcat_vcat(std::vector<Factors> const& parts) {
  std::vector<at::Tensor> b, a;
  for (auto const& part : parts) {
    b.push_back(part.b);
    a.push_back(part.a);
  }
  return {at::cat(b, 1), at::cat(a, 0)};
}

ClientFactors factors_of(LowRankTarget const& target, LoraFactors const& lora, GatheredMessages const& all,
                         std::vector<double> weights) {
  auto const rank = all.messages.front().at(target.a).size(0);
  ClientFactors factors{target, rank, {}, std::move(weights)};
  for (size_t i = 0; i < all.tasks.size(); ++i) {
    auto const own = rank_of(lora, all.tasks[i].client, rank).rank;
    factors.clients.push_back({all.messages[i].at(target.b).narrow(1, 0, own).to(at::kDouble),
                               all.messages[i].at(target.a).narrow(0, 0, own).to(at::kDouble)});
  }
  return factors;
}

/// p_k of those that arrived.
std::vector<double> planned_weights(GatheredMessages const& all) {
  double sum = 0;
  for (auto const& task : all.tasks) sum += task.weight;
  std::vector<double> weights;
  for (auto const& task : all.tasks) weights.push_back(task.weight / sum);
  return weights;
}

at::Tensor weighted_mean(GatheredMessages const& all, std::vector<double> const& weights,
                         std::string const& name) {
  auto const& first = all.messages.front().at(name);
  auto sum = at::zeros_like(first, first.options().dtype(at::kDouble));
  for (size_t i = 0; i < all.messages.size(); ++i) sum.add_(all.messages[i].at(name), weights[i]);
  return sum.to(first.scalar_type());
}

/// Of what a rule's factors lack of the clients' products: squares of its norm and of theirs.
at::Tensor error_of(NewFactors const& next, ClientFactors const& all) {
  auto const exact = all.stacked();
  auto rest = std::vector<Factors>{exact, {next.factors.b.mul(-all.target.scale), next.factors.a}};
  if (next.change) rest.push_back({next.change->b.neg(), next.change->a});
  return at::tensor({squared_norm(hcat_vcat(rest)), squared_norm(exact)}, at::kDouble);
}

class FactorStep : public ServerStep {
 public:
  void step(ServerState& server, Message const& arrived, RoundPlan const&) override {
    for (auto const& [name, tensor] : arrived.mean) server.weights.at(name).copy_(tensor);
    double error = 0, all = 0;
    for (auto const& [name, tensor] : arrived.sum)
      if (name.starts_with(kError)) {
        error += tensor[0].item<double>();
        all += tensor[1].item<double>();
      } else {
        server.base_change.emplace(name, tensor);
      }
    server.facts["aggregation_error"] = all > 0 ? std::sqrt(std::max(0.0, error) / all) : 0;
  }
};

}  // namespace

Factors ClientFactors::stacked() const {
  std::vector<Factors> parts;
  int64_t columns = 0;
  for (size_t i = 0; i < clients.size(); ++i) {
    parts.push_back({clients[i].b.mul(weights[i] * target.scale), clients[i].a});
    columns += clients[i].a.size(0);
  }
  if (auto const missing = rank - columns; missing > 0) {
    auto const& [b, a] = clients.front();
    parts.push_back(
        {at::zeros({b.size(0), missing}, at::kDouble), at::zeros({missing, a.size(1)}, at::kDouble)});
  }
  return hcat_vcat(parts);
}

Factors ClientFactors::mean() const {
  auto const& [first_b, first_a] = clients.front();
  Factors mean{at::zeros({first_b.size(0), rank}, at::kDouble),
               at::zeros({rank, first_a.size(1)}, at::kDouble)};
  for (size_t i = 0; i < clients.size(); ++i) {
    auto const own = clients[i].a.size(0);
    mean.b.narrow(1, 0, own).add_(clients[i].b, weights[i]);
    mean.a.narrow(0, 0, own).add_(clients[i].a, weights[i]);
  }
  return mean;
}

double squared_norm(Factors const& product) {
  return product.b.t().mm(product.b).mul(product.a.mm(product.a.t())).sum().item<double>();
}

ClientRank rank_of(LoraFactors const& lora, int64_t client, int64_t rank) {
  auto const own = lora.clients.find(client);
  return own == lora.clients.end() ? ClientRank{rank, 1} : own->second;
}

TensorMap folded_parameters(LoraFactors const& lora, ClientTurn const& turn) {
  auto folded = clone(turn.parameters);
  auto const own = lora.clients.find(turn.task.client);
  if (own == lora.clients.end()) return folded;
  for (auto const& target : lora.targets) folded.at(target.b).mul_(own->second.scale);
  return folded;
}

void fit_ranks(FedAlgorithm& algorithm, LoraFactors const& lora) {
  if (lora.clients.empty()) return;
  algorithm.fit = [lora](TensorMap start, int64_t client) {
    auto const own = lora.clients.find(client);
    if (own == lora.clients.end()) return start;
    auto const [rank, scale] = own->second;
    for (auto const& target : lora.targets) {
      auto& a = start.at(target.a) = start.at(target.a).detach().clone();
      auto& b = start.at(target.b) = start.at(target.b).detach().div(scale);
      a.narrow(0, rank, a.size(0) - rank).zero_();
      b.narrow(1, rank, b.size(1) - rank).zero_();
    }
    return start;
  };
}

namespace {

/// The algorithm of this run's LoRA.
void bind_rule(FedAlgorithm& algorithm, LoraFactors const& lora, FactorRule const& rule,
               FactorWeights const& weights) {
  fit_ranks(algorithm, lora);
  std::map<std::string, std::string> unit;
  for (auto const& target : lora.targets) unit[target.a] = unit[target.b] = target.module;
  algorithm.unit = [unit](std::string const& name) {
    auto const found = unit.find(name);
    return found == unit.end() ? name : found->second;
  };
  algorithm.averaged = [](TensorMap const& all) { return all; };
  algorithm.finish = [lora](ClientTurn& turn) { return Message{folded_parameters(lora, turn), {}, {}}; };
  algorithm.combine = [lora, unit, rule, weights](GatheredMessages const& all, Communicator const& comm) {
    auto const p = planned_weights(all);
    auto const chosen = weights ? weights(lora, all, comm) : p;
    Message result;
    for (auto const& [name, tensor] : all.messages.front())
      if (!unit.contains(name)) result.mean.emplace(name, weighted_mean(all, p, name));
    for (auto const& target : lora.targets) {
      if (!all.messages.front().contains(target.a)) continue;
      auto const exact = factors_of(target, lora, all, p);
      auto next = rule(factors_of(target, lora, all, chosen));
      auto const type = all.messages.front().at(target.a).scalar_type();
      result.mean.emplace(target.b, next.factors.b.to(type));
      result.mean.emplace(target.a, next.factors.a.to(type));
      if (next.change) {
        result.sum.emplace(target.module + ".left", next.change->b.to(type));
        result.sum.emplace(target.module + ".right", next.change->a.to(type));
      }
      result.sum.emplace(kError + target.module, error_of(next, exact));
    }
    return result;
  };
  algorithm.server_step = [](TensorMap const&) { return std::make_unique<FactorStep>(); };
}

}  // namespace

void gather_factors(FedAlgorithm& algorithm, FactorRule rule, FactorWeights weights) {
  algorithm.kind = Kind::gather;
  algorithm.unequal_ranks = true;
  algorithm.makes_factors = true;
  algorithm.bind = [rule = std::move(rule), weights = std::move(weights)](FedAlgorithm& bound,
                                                                          LoraFactors const& lora) {
    bind_rule(bound, lora, rule, weights);
  };
}

}  // namespace fsllm
