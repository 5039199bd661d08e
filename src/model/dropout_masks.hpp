// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fsllm::detail {

/// The blocks of a mask: int64 tensors [lines] of 64-bit keys and of the counter's last three words.
struct MaskBlocks {
  at::Tensor key, place, row, head;
  int64_t width = 0;
  uint32_t threshold = 0;  ///< words below it are kept
};

/// Two forms of one function → bool [lines, width]: a loop for tensors in host memory, and integer operations
/// of LibTorch for any device, so that nothing is sent there.
at::Tensor mask_by_loop(MaskBlocks const& blocks);
at::Tensor mask_by_tensors(MaskBlocks const& blocks);

}  // namespace fsllm::detail
