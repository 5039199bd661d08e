// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/offsite/config.hpp"
#include "fsllm/peft/peft.hpp"

namespace fsllm {

/// Which blocks of the full model the emulator has. Blocks are numbered as in the full model, unless they are
/// called places.
struct EmulatorPlan {
  int64_t layers = 0;           ///< of the full model
  int64_t first = 0, last = 0;  ///< [0, first) and [last, layers) are trained
  std::vector<int64_t> kept;    ///< all blocks of the emulator, ascending
  double sparsity = 0;          ///< of the matrices of untrained blocks
  bool trains_rest = false;     ///< embeddings, last norm and head too (compat.fsllm)

  bool is_trained(int64_t block) const;  ///< -1: what belongs to no block
  std::vector<int64_t> trained() const;
  /// Places of the untrained blocks in the emulator.
  std::vector<int64_t> middle() const;
  /// The name in the full model of a tensor of the emulator, and back; blocks that the emulator has not are
  /// none of its names.
  std::string full_name(std::string const& name) const;
};

/// The rule of FS-LLM (llm/offsite_tuning/utils.py): l = max(emu_l, 1), r = min(emu_r, layers − 1), n = r −
/// l, m = round(n (1 − drop_ratio)) half to even; of the middle blocks l + int(i (n − 1)/(m − 1)) for i < m
/// stay. Ranges without a block, and m = 0, are Errors.
EmulatorPlan plan_emulator(OffsiteConfig const& config, int64_t layers);

/// A LoRA of the trained blocks alone: llm.adapter.args[0].layers_to_transform becomes these, or must name
/// some of them. Other adapters, and trained biases, are Errors.
void restrict_adapter(PeftConfig& peft, EmulatorPlan const& plan);

/// Tensors of an adapter (names of the full model) that lie beyond the trained blocks are an Error.
void check_adapter(TensorMap const& state, EmulatorPlan const& plan);

/// Makes the trained blocks of an emulator own fp32 copies that learn; these tensors by their names in it.
TensorMap make_blocks_trainable(CausalLM& emulator, EmulatorPlan const& plan);

/// Writes the full model `source` with `values` (names of the emulator) in their place, and embeddings of the
/// emulator that have more rows; every other tensor has the bytes of the source.
void save_plugged(std::filesystem::path const& source, EmulatorPlan const& plan, CausalLM& emulator,
                  TensorMap const& values, std::filesystem::path const& out);

}  // namespace fsllm
