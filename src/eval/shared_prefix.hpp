// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm::detail {

/// Tokens to be fed together, of which the model's answers are wanted from place `first_wanted` on.
struct ScoredInput {
  std::vector<int32_t> ids;
  int64_t first_wanted = 0;
  std::vector<size_t> rows;  ///< that it answers
};

/// Inputs [first, end), of which the first `prefix` tokens are the same and wanted by none; 0: nothing
/// shared.
struct PrefixFamily {
  size_t first = 0, end = 1;
  int64_t prefix = 0;
};

/// Neighbours in lexicographic order that share enough of their beginning to compute it once.
std::vector<PrefixFamily> prefix_families(std::vector<ScoredInput> const& inputs, ModelConfig const& config);

/// What is computed by one rank: families that together feed about `batch_tokens` tokens. A large family is
/// cut where what its prefix costs again is little beside the rest.
std::vector<std::vector<PrefixFamily>> family_batches(std::vector<ScoredInput> const& inputs,
                                                      std::vector<PrefixFamily> const& families,
                                                      int64_t batch_tokens);

}  // namespace fsllm::detail
