// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

namespace fsllm {

/// What is done around the blocks of passes, by which the weights of a block need be there only while it
/// computes (ZeRO stage 3).
struct LayerHooks {
  virtual ~LayerHooks() = default;
  /// Before any weight of the model is used.
  virtual void before_pass() = 0;
  virtual void before_forward(int64_t layer) = 0;
  virtual void after_forward(int64_t layer) = 0;
  /// The gradient of the block's output is known.
  virtual void before_backward(int64_t layer) = 0;
  /// The gradients of the block's parameters are complete. Does not come where its input needs no gradient.
  virtual void after_backward(int64_t layer) = 0;
};

}  // namespace fsllm
