// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// Fails with the name of a weight that is not finite, if there is one. Reads all weights that are there
/// (those of blocks come and go under ZeRO stage 3): for when a result is not finite, not before.
void check_finite_weights(CausalLM& model);

}  // namespace fsllm
