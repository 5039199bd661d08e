// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>

#include "setup.hpp"

namespace fsllm {

/// Collective: with llm.offsite_tuning the emulator lies in the run directory, made by rank 0 from the full
/// model, which no other rank opens; from now on it is the model of the run. A run that goes on takes the one
/// that it has.
void make_emulator(Setup& s, Communicator const& comm);

/// On rank 0: the full model with these values of the trained blocks (or of the adapter). It is loaded when
/// it is first asked for, and lives as long as the function.
std::function<CausalLM&(TensorMap const& values)> full_model_with(Setup const& s);

}  // namespace fsllm
