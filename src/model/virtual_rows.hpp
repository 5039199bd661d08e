// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm::detail {

/// The rows of one forward pass with the virtual tokens before those that begin (that have no past in the
/// cache). Without virtual tokens everything passes through.
class VirtualRows {
 public:
  /// The learned values come in the compute type; `of_tokens` is the pass they are made in.
  VirtualRows(VirtualTokens* tokens, RaggedInput const& input, KvCache const* cache, Pass const& of_tokens,
              at::ScalarType compute);

  /// Offsets of the rows as the layers see them: longer by the embeddings that insert() puts before them.
  std::vector<int64_t> const& offsets() const { return offsets_; }
  /// [V, 2·layers, kv_heads, head_dim], or undefined.
  at::Tensor const& keys_values() const { return keys_values_; }

  /// x [N, ...] → [offsets().back(), ...].
  at::Tensor insert(at::Tensor const& x) const;
  /// The other way: the real tokens' part.
  at::Tensor remove(at::Tensor const& x) const;

 private:
  std::vector<int64_t> given_, offsets_;
  std::vector<bool> begins_;
  at::Tensor embeddings_, keys_values_;
};

}  // namespace fsllm::detail
