// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <unordered_map>

namespace fsllm::detail {

/// What rows of tokens are behind the first `blocks` blocks, by their tokens.
class FrozenRows {
 public:
  FrozenRows(int64_t blocks, int64_t limit) : blocks_(blocks), limit_(limit) {}
  int64_t blocks() const { return blocks_; }
  /// [tokens, hidden]: what is kept, or compute()'s, which is kept while there is room.
  at::Tensor get(std::span<int64_t const> tokens, std::function<at::Tensor()> const& compute);
  void clear();
  int64_t bytes() const { return bytes_; }

 private:
  int64_t blocks_, limit_, bytes_ = 0;
  std::unordered_map<std::string, at::Tensor> rows_;  ///< by the bytes of their tokens
};

}  // namespace fsllm::detail
