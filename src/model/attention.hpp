// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <tuple>
#include <vector>

#include "fsllm/model/causal_lm.hpp"
#include "virtual_rows.hpp"

namespace fsllm::detail {

/// How one forward pass attends, made once for all layers: which rows share a call, which masks they need.
class AttentionPlan {
 public:
  AttentionPlan(VirtualRows const& rows, KvCache* cache, c10::Device device);

  /// q [N, heads, D], k and v [N, kv_heads, D] → [N, heads·D]; softmax(q kᵀ / sqrt(D)) v over the earlier
  /// tokens of the same row, the last `window` of them unless that is 0.
  at::Tensor attend(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, int64_t layer,
                    int64_t window);

  at::Tensor const& positions() const { return positions_; }  ///< int64 [N]
  int64_t end_position() const { return end_position_; }      ///< one beyond the largest
  /// Ends the pass: what attend() appended is the rows' past from now on.
  void advance_cache();

 private:
  /// Neighbouring rows of equal length; with a cache each row is alone. `prefix` of the `past` tokens are
  /// virtual keys and values that are not in the cache yet.
  struct Run {
    int64_t first_row, rows, length, past, prefix;
    int64_t tokens() const { return rows * length; }
  };
  at::Tensor before(Run const& run, at::Tensor const& own, int64_t index) const;
  at::Tensor attend_run(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, Run const& run,
                        int64_t window);
  at::Tensor mask(int64_t length, int64_t past, int64_t window);

  std::vector<Run> runs_;
  std::vector<int64_t> split_sizes_;
  at::Tensor positions_, keys_values_;
  int64_t end_position_ = 0;
  KvCache* cache_;
  c10::Device device_;
  std::map<std::tuple<int64_t, int64_t, int64_t>, at::Tensor> masks_;
};

}  // namespace fsllm::detail
