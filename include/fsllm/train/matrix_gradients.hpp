// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "fsllm/train/local_training.hpp"

namespace fsllm {

/// The gradients of frozen matrices that full fine-tuning would take its first step with: module → [out, in]
/// in fp32, of the mean loss per target over `step`, by way of its loss scale or a smaller one. Adapters of
/// these modules take no part.
TensorMap matrix_gradients(CausalLM& model, std::vector<std::string> const& modules,
                           LocalTraining::Prepared const& step);

/// What the first step of a fresh optimiser adds to a parameter (without weight decay): SGD -η g, Adam and
/// AdamW -η g / (|g| + ε).
at::Tensor first_update(OptimizerConfig const& config, at::Tensor const& gradient);

}  // namespace fsllm
