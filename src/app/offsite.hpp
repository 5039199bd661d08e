// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>

#include "setup.hpp"
#include "trainable.hpp"

namespace fsllm {

/// Collective: with llm.offsite_tuning the emulator lies in the run directory, made by rank 0 from the full
/// model, which no other rank opens; from now on it is the model of the run. A run that goes on takes the one
/// that it has.
void make_emulator(Setup& s, Communicator const& comm);

/// On rank 0: the full model with these values of the trained blocks (or of the adapter). It is loaded when
/// it is first asked for, and lives as long as the function.
using FullModelWith = std::function<CausalLM&(TensorMap const& values)>;
FullModelWith full_model_with(Setup const& s);

/// llm.offsite_tuning.emu_align.initial_only: False: the algorithm's server distils the middle blocks again
/// after every step of its own, from the full model with the trained blocks, and sends them beside the
/// weights (FedBiOT, Wu et al. 2024, algorithm 1). `s` and `t` must outlive the run.
void align_every_round(Setup& s, Trainable& t, FullModelWith const& full_model);
/// On every rank, whenever they have come: the emulator has these.
void take_middle_blocks(Trainable& t, TensorMap const& extra);

}  // namespace fsllm
