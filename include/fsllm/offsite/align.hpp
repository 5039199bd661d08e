// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/data/batch.hpp"
#include "fsllm/io/shard.hpp"
#include "fsllm/offsite/emulator.hpp"

namespace fsllm {

/// mean(((h_T − h_S) / sqrt(mean(h_T²)))²) over all elements, in fp32 (FS-LLM llm/trainer/kd_trainer.py).
at::Tensor distillation_loss(at::Tensor const& teacher, at::Tensor const& student);

/// Means over rows that the distillation does not learn from: the emulator's cross-entropy per target, and
/// its distillation loss per batch.
struct AlignLosses {
  double lm = 0, kd = 0;
};
struct AlignResult {
  TensorMap blocks;
  AlignLosses before, after;
};

struct AlignJob {
  EmulatorPlan const& plan;
  AlignConfig const& config;
  BatchConfig batch;
  uint64_t seed = 0;
  TokenSplit const& train;
  TokenSplit const& judged;  ///< may be empty
  int64_t round = 0;         ///< 0: before the first one; gives other rows
};

/// Distils the middle blocks of the emulator from the full model: its hidden states behind the last middle
/// block learn those of the full model behind block plan.last − 1, and its logits the targets and the full
/// model's: lm_weight · CE + kd_weight · distillation_loss + kl_weight · KL. Nothing else moves, nothing is
/// dropped; weights that a sparse emulator has not stay 0. The blocks by their names in the emulator, in the
/// types that they had, which they have in `emulator` too then, and losses of `judged`. A loss that is not
/// finite is an Error.
AlignResult align_emulator(CausalLM& full, CausalLM& emulator, AlignJob const& job);

/// The parameters of the middle blocks, live, by their names in the emulator.
TensorMap middle_parameters(CausalLM& emulator, EmulatorPlan const& plan);

/// Writes middle blocks (names of the emulator) under their names in the full model.
void write_middle(std::filesystem::path const& file, EmulatorPlan const& plan, TensorMap const& blocks);
/// Reads them; other names or shapes than those of `emulator`, and weights that a sparse one has not, are an
/// Error.
TensorMap read_middle(std::filesystem::path const& file, EmulatorPlan const& plan, CausalLM& emulator);

}  // namespace fsllm
