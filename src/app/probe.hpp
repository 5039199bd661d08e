// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// Logits of a few fixed tokens, which an adapter that does anything changes, and by which two forms of one
/// model are told to be the same.
at::Tensor probe_logits(CausalLM& model);

}  // namespace fsllm
