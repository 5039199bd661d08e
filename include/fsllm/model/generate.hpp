// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// One text to continue.
struct GenerateRow {
  std::vector<int32_t> prompt;  ///< at least one token
  int64_t max_tokens = 16;
  double temperature = 0;  ///< 0 is greedy
  uint64_t seed = 0;       ///< for temperature > 0; token i is drawn from (seed, generation, step i)
};

struct GenerateOptions {
  std::vector<int32_t> stop_ids;  ///< generation of a row ends before these (EOS)
  /// Called after each new token with (row, new ids so far); true ends the row (stop strings).
  std::function<bool(int64_t, std::vector<int32_t> const&)> stop;
};

/// Continues all rows in one batch with a KV cache; returns only the new ids. A prompt longer than the
/// model's positions minus max_tokens is an Error.
std::vector<std::vector<int32_t>> generate(CausalLM& model, std::vector<GenerateRow> const& rows,
                                           GenerateOptions const& options = {});

}  // namespace fsllm
