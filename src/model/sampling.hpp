// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "fsllm/model/generate.hpp"

namespace fsllm::detail {

/// Whether the next token of a row is simply the most likely one.
inline bool is_plainly_greedy(GenerateRow const& row) {
  return row.temperature == 0 && row.repetition_penalty == 1;
}

/// The token after `ids`, given logits [vocab] of any type on any device; `step` counts the row's new tokens.
int32_t next_token(at::Tensor const& logits, GenerateRow const& row, std::vector<int32_t> const& ids,
                   int64_t step);

/// Of logits [vocab]: log-probabilities of `id` and of the `top` most likely tokens.
TokenLogprobs logprobs_of(at::Tensor const& logits, int32_t id, int64_t top);

/// An Error where a row can never be continued.
void check_row(ModelConfig const& config, GenerateRow const& row);

}  // namespace fsllm::detail
