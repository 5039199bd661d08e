// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/model/checkpointing.hpp"

namespace fsllm {

/// What training keeps for the backward pass of a forward pass through all blocks, in bytes: fixed (converted
/// weights, say), and linear·L + square·L² of each row of L tokens.
struct ActivationBytes {
  double fixed = 0, linear = 0, square = 0;
  double of(double rows, double length) const { return fixed + rows * length * (linear + square * length); }
};

/// Counts what three short passes save, whatever the weights are (LoadOptions::values may be false): it holds
/// for every family and adapter. `trained` are the tensors that learn, inside the model.
ActivationBytes count_activations(CausalLM& model, TensorMap const& trained, Checkpointing checkpointing);

}  // namespace fsllm
