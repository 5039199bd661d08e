// SPDX-License-Identifier: Apache-2.0
// FedEM, Marfoq et al. 2021, "Federated multi-task learning under a mixture of distributions", algorithm 1.
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <fmt/core.h>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/mixture.hpp"

namespace fsllm {
namespace {

/// Moves all components as the algorithm without them moves its one model.
class ComponentStep : public SurroundingStep {
 public:
  using SurroundingStep::SurroundingStep;
  void step(ServerState& server, Message const& arrived, RoundPlan const& plan) override {
    ServerState all{joined(server), {}, {}, {}};
    inner->step(all, arrived, plan);
    for (auto* part : {&server.weights, &server.extra})
      for (auto& [name, tensor] : *part) tensor = all.weights.at(name);
    server.facts = all.facts;
  }
  static TensorMap joined(ServerState const& server) {
    auto all = server.weights;
    all.insert(server.extra.begin(), server.extra.end());
    return all;
  }
};

/// log π_m - loss.
at::Tensor log_joint(at::Tensor const& losses, at::Tensor const& mixture) {
  return mixture.log().unsqueeze(0).sub(losses);
}

}  // namespace

std::string component_name(int64_t component, std::string const& parameter) {
  return component == 0 ? parameter : fmt::format("component_{}/{}", component + 1, parameter);
}

TensorMap component_of(ServerState const& server, int64_t component) {
  if (component == 0) return server.weights;
  TensorMap own;
  for (auto const& [name, tensor] : server.weights)
    own.emplace(name, server.extra.at(component_name(component, name)));
  return own;
}

int64_t main_component(TensorMap const& state) {
  return state.at(kMixture).argmax().item<int64_t>();
}

at::Tensor responsibilities(at::Tensor const& losses, at::Tensor const& mixture) {
  return at::log_softmax(log_joint(losses, mixture), 1).exp();
}

at::Tensor mixture_losses(at::Tensor const& losses, at::Tensor const& mixture) {
  return at::logsumexp(log_joint(losses, mixture), 1).neg();
}

void bind_components(FedAlgorithm& algorithm, LoraFactors const& factors) {
  FSLLM_CHECK(factors.fresh,
              "federate.method = fedem with full parameters (all components would begin as the given model, "
              "and never part). Train an adapter: llm.adapter.use True.");
  algorithm.begin = [count = algorithm.components, factors](ServerState& server) {
    for (int64_t m = 1; m < count; ++m) {
      bool differs = false;
      for (auto const& [name, tensor] : factors.fresh(factors.seed + static_cast<uint64_t>(m))) {
        auto& own = server.extra.at(component_name(m, name));
        differs = differs || !tensor.to(own.device()).equal(server.weights.at(name));
        own.copy_(tensor);
      }
      FSLLM_CHECK(differs,
                  "federate.method = fedem: this adapter method begins with the same values always (all "
                  "components would begin alike, and never part). Use another one, such as lora.");
    }
  };
}

void fedem(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  auto const count = config.get<int64_t>("model.model_num_per_trainer", 1,
                                         "FedEM: models (components) in the mixture.", at_least(1));
  if (method != "fedem") return;
  FSLLM_CHECK(count > 1, "{} = 1 with federate.method = fedem (a mixture of one is FedAvg). Set 2 or more.",
              config.where("model.model_num_per_trainer"));
  algorithm.components = count;
  algorithm.bind = bind_components;
  algorithm.personal = true;
  auto const others = [count](TensorMap const& weights) {
    TensorMap all;
    for (int64_t m = 1; m < count; ++m)
      for (auto const& [name, tensor] : weights)
        all.emplace(component_name(m, name), tensor.detach().clone());
    return all;
  };
  algorithm.server_extra = others;
  algorithm.averaged = [others](TensorMap const& weights) {
    auto all = others(weights);
    all.insert(weights.begin(), weights.end());
    return all;
  };
  algorithm.client_state = [count](TensorMap const&) {
    return TensorMap{{kMixture, at::full({count}, 1.0 / static_cast<double>(count), at::kDouble)}};
  };
  algorithm.server_step = [others, inner = algorithm.server_step](TensorMap const& weights) {
    return std::make_unique<ComponentStep>(inner(ComponentStep::joined({weights, others(weights), {}, {}})));
  };
}

}  // namespace fsllm
