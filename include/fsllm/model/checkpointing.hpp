// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

namespace fsllm {

class CausalLM;

/// What training keeps of a block's values for the backward pass: all; its input alone (block); what matrix
/// products give, without what follows from it at little cost (selective: norms, activations, masks of
/// dropout, attention itself; Korthikanti et al. 2022, section 5). The rest is computed again there, to the
/// same bits. Without gradients nothing is kept anyway.
enum class Checkpointing { none, block, selective };
Checkpointing parse_checkpointing(std::string const& name);
void set_checkpointing(CausalLM& model, Checkpointing checkpointing);

/// What a LinearAdapter is too if its apply() may only add to y: no gradient then needs the value of y.
struct AddsToOutput {
  virtual ~AddsToOutput() = default;
  virtual bool only_adds() const = 0;
};

}  // namespace fsllm
