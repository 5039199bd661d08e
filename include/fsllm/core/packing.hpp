// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fsllm {

/// How the rows of a forward pass meet in attention (dataloader.packing). Results differ by rounding alone.
enum class Packing {
  pack,           ///< row by row, those of one length in one call
  pad,            ///< padded to the longest, all in one call (not with a cache)
  shared_prefix,  ///< as pack, and what all rows begin with is computed once
};

}  // namespace fsllm
