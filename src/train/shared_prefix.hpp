// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "fsllm/data/batch.hpp"
#include "fsllm/model/config.hpp"

namespace fsllm {

/// A batch with what its rows begin with as a first row, and the rest of each behind it.
struct SharedPrefix {
  std::vector<int64_t> ids, offsets;
  std::vector<int64_t> target_positions;  ///< of the batch's targets, in their order
};

/// None where rows have little in common, or positions of theirs would not be the same in all.
std::optional<SharedPrefix> share_prefix(Batch const& batch, ModelConfig const& model);

}  // namespace fsllm
