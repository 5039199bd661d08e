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
  explicit FrozenRows(int64_t limit) : limit_(limit) {}
  /// [tokens, hidden]: what is kept, or compute()'s, which is kept while there is room. Rows behind another
  /// number of blocks are forgotten.
  at::Tensor get(std::span<int64_t const> tokens, int64_t blocks, std::function<at::Tensor()> const& compute);
  void clear();
  int64_t bytes() const { return bytes_; }

 private:
  int64_t limit_, bytes_ = 0, blocks_ = 0;
  std::unordered_map<std::string, at::Tensor> rows_;  ///< by the bytes of their tokens
};

}  // namespace fsllm::detail
