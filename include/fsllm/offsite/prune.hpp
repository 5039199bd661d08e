// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/model/blocks.hpp"
#include "fsllm/offsite/emulator.hpp"

namespace fsllm {

/// Magnitude pruning (Han et al. 2015) with the weights of one output as the group that is compared, as in
/// Wanda (Sun et al. 2024, section 3): the int(sparsity · n) smallest of the n weights along `inputs` become
/// 0, the first of equal ones.
at::Tensor pruned(at::Tensor const& weight, double sparsity, int64_t inputs);

/// Prunes the matrices of the untrained blocks (names of the emulator) to plan.sparsity; `conv1d`: they lie
/// [in, out].
TensorChange prune_middle(EmulatorPlan const& plan, bool conv1d);

/// Where the matrices among `middle` (parameters of untrained blocks) are 0: bool, in their shapes. Empty for
/// an emulator that is not sparse.
TensorMap absent_weights(TensorMap const& middle, EmulatorPlan const& plan);

}  // namespace fsllm
