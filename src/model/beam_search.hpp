// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "fsllm/model/generate.hpp"

namespace fsllm::detail {

/// The new ids of the best of `row.num_beams` beams by log-probability over length^length_penalty, EOS
/// counted, as transformers searches without early stopping. `number` is what options.stop calls the row.
std::vector<int32_t> beam_search(CausalLM& model, GenerateRow const& row, int64_t number,
                                 GenerateOptions const& options);

}  // namespace fsllm::detail
