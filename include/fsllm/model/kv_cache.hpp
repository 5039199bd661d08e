// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace fsllm {

/// Keys and values of the tokens that each row has seen, a buffer per layer and row that grows by doubling.
/// For inference: nothing in it carries gradients.
class KvCache {
 public:
  KvCache(int64_t layers, int64_t rows);

  int64_t rows() const { return static_cast<int64_t>(past_.size()); }
  /// Tokens that row `row` has seen before this forward pass.
  int64_t past(int64_t row) const { return past_[static_cast<size_t>(row)]; }
  /// Stores k and v [T, kv_heads, head_dim] behind the row's past and returns views of all its keys and
  /// values, [past + T, kv_heads, head_dim].
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, int64_t row, at::Tensor const& k,
                                           at::Tensor const& v);
  /// Where the keys and values of a row lie, [tokens, kv_heads, head_dim] each.
  struct Cached {
    void const *keys = nullptr, *values = nullptr;
    int64_t tokens = 0;
  };
  /// The same for one token of each row in host memory: k and v [rows, kv_heads, head_dim].
  std::vector<Cached> append_to_each(int64_t layer, at::Tensor const& k, at::Tensor const& v);
  /// Ends a forward pass that appended `tokens` to the row in every layer.
  void advance(int64_t row, int64_t tokens) { past_[static_cast<size_t>(row)] += tokens; }
  /// A further row, behind the others, that has seen nothing.
  void add_row();
  /// A further row that has seen the first `tokens` of a row of `other`; it takes memory of its own when
  /// something is appended to it.
  void add_row(KvCache const& other, int64_t row, int64_t tokens);
  /// Forgets what the row has seen.
  void restart(int64_t row);
  /// Forgets all rows but these, in this order; one may come several times.
  void keep(std::vector<int64_t> const& rows);

 private:
  struct Slot {
    at::Tensor keys, values;  ///< [capacity, kv_heads, head_dim]
    bool shared = false;      ///< the memory is another row's
  };
  Slot& with_room(int64_t layer, int64_t row, at::Tensor const& like, int64_t tokens);

  std::vector<std::vector<Slot>> slots_;  ///< [layer][row]
  std::vector<int64_t> past_;
};

}  // namespace fsllm
