// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

/// Models whose mixture each client fits with weights of its own (FedAlgorithm::components of them, from 0):
/// component 0 is ServerState::weights, the others lie in ServerState::extra.
std::string component_name(int64_t component, std::string const& parameter);
TensorMap component_of(ServerState const& server, int64_t component);

/// A client's π, in its state: fp64 [components].
constexpr char const kMixture[] = "mixture";
/// The component that weighs most for a client; of equals the first.
int64_t main_component(TensorMap const& state);

/// q(m | row) ∝ π_m exp(-loss of the row under m): Marfoq et al. 2021, equation 10. `losses` [rows,
/// components] are negative log-likelihoods of whole rows, fp64; π [components] → [rows, components].
at::Tensor responsibilities(at::Tensor const& losses, at::Tensor const& mixture);
/// -log Σ_m π_m exp(-loss): a row's loss under the mixture. [rows]
at::Tensor mixture_losses(at::Tensor const& losses, at::Tensor const& mixture);

/// Gives an algorithm of several components their first values: the run's, and fresh ones. Where fresh ones
/// are no others (full parameters, IA3) components would never part: an Error.
void bind_components(FedAlgorithm& algorithm, LoraFactors const& factors);

}  // namespace fsllm
