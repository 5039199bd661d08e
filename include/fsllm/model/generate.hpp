// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

struct GenerateOptions {
  int64_t max_tokens = 16;
  double temperature = 0;         ///< 0 is greedy
  uint64_t seed = 0;              ///< for temperature > 0; keyed by row and step
  std::vector<int32_t> stop_ids;  ///< generation of a row ends before these (EOS)
  /// Called after each new token with (row, ids so far); true ends the row (stop strings).
  std::function<bool(int64_t, std::vector<int32_t> const&)> stop;
};

/// Continues each prompt, all rows in one batch with a KV cache; returns only the new ids. Prompts longer
/// than the model's positions minus max_tokens are an Error.
std::vector<std::vector<int32_t>> generate(CausalLM& model, std::vector<std::vector<int32_t>> const& prompts,
                                           GenerateOptions const& options);

}  // namespace fsllm
