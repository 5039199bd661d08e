// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "fsllm/model/linear.hpp"

namespace fsllm {

/// Learned tokens before every row (prompt learning): they take the first positions, and the row sees them as
/// its past.
struct VirtualTokens {
  virtual ~VirtualTokens() = default;
  virtual int64_t count() const = 0;  ///< V
  /// Of a pass whose tokens are these, in row 0: their dropout is that of the first client's step. Either
  /// embeddings [V, hidden], which pass through all layers as those of ids do, or what attention sees before
  /// the row's own keys and values: [V, 2·layers, kv_heads, head_dim], the keys (as after the rotation) of
  /// layer 0, its values, the keys of layer 1, and so on.
  virtual at::Tensor values(Pass const& tokens) = 0;
};

}  // namespace fsllm
