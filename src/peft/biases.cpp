// SPDX-License-Identifier: Apache-2.0
#include "biases.hpp"

#include <ATen/core/grad_mode.h>

namespace fsllm::detail {
namespace {

constexpr char const* kBias = ".bias";

/// What module paths have before the names of the file: files saved without the head's class lack it.
std::string missing_prefix(CausalLM& model, TensorMap const& parameters) {
  for (auto const* linear : model.linears())
    for (size_t from = 0; from != std::string::npos; from = linear->name.find('.', from)) {
      if (from > 0) ++from;
      auto const path = linear->name.substr(from);  // quantised weights are not among the parameters
      if (parameters.count(path + ".weight") + parameters.count(path + kBias) != 0)
        return linear->name.substr(0, from);
    }
  return "";
}

}  // namespace

TrainedBiases::TrainedBiases(CausalLM& model, std::function<bool(std::string const& module)> const& selects) {
  auto const parameters = model.parameters();
  auto const prefix = missing_prefix(model, parameters);
  for (auto const& [name, tensor] : parameters) {
    if (!name.ends_with(kBias)) continue;
    auto const module = prefix + name.substr(0, name.rfind('.'));
    if (!selects(module)) continue;
    auto const value = tensor.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    biases_.push_back({name, module, tensor, value.set_requires_grad(true)});
  }
}

TensorMap TrainedBiases::by_module() const {
  TensorMap map;
  for (auto const& bias : biases_) map.emplace(bias.module, bias.value);
  return map;
}

void TrainedBiases::attach(CausalLM& model) const {
  for (auto const& bias : biases_) model.set_parameter(bias.parameter, bias.value);
}

void TrainedBiases::detach(CausalLM& model) const {
  for (auto const& bias : biases_) model.set_parameter(bias.parameter, bias.original);
}

void TrainedBiases::initialize() const {
  at::NoGradGuard const no_grad;
  for (auto const& bias : biases_) bias.value.copy_(bias.original);
}

void TrainedBiases::merge_into(CausalLM& model) const {
  for (auto const& bias : biases_)
    model.set_parameter(bias.parameter, bias.value.detach().to(bias.original.scalar_type(), false, true));
}

}  // namespace fsllm::detail
