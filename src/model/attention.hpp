// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "fsllm/model/kv_cache.hpp"
#include "fsllm/model/pass.hpp"
#include "functions.hpp"
#include "virtual_rows.hpp"

namespace fsllm::detail {

/// How q·k becomes weights: softmax(cap · tanh(scale · q·k / cap) − slope · distance), some of them dropped.
struct ScoreRule {
  double scale = 1;
  double softcap = 0;  ///< 0: no cap
  double dropout = 0;  ///< probability of dropping a weight in training
  at::Tensor
      slopes;  ///< [heads, 1, 1] in the compute type (ALiBi; Press et al. 2022, section 3), or undefined
};

/// How one forward pass attends, the same for all its layers: which rows share a call, which masks they need.
class AttentionPlan {
 public:
  /// `lines` [rows] have no places yet; undefined outside training. `windows`: all that layers have.
  AttentionPlan(VirtualRows const& rows, PassOptions const& options, KvCache* cache, DropoutLines lines,
                ScoreRule rule, std::vector<int64_t> const& windows, c10::Device device);

  /// q [N, heads, D], k and v [N, kv_heads, D] → [N, heads·D]; the values of the earlier tokens of the same
  /// row, the last `window` of them unless that is 0, in the weights that the rule gives.
  at::Tensor attend(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, int64_t layer,
                    int64_t window) const;

  at::Tensor const& positions() const { return positions_; }  ///< int64 [N]
  int64_t end_position() const { return end_position_; }      ///< one beyond the largest
  at::Tensor row_ends() const;       ///< int64 [N], one beyond the last position of each token's row
  DropoutLines token_lines() const;  ///< [N], of all tokens
  bool has_cache() const { return cache_ != nullptr; }
  /// What attend() appended is the rows' past from now on.
  void advance_cache() const;

 private:
  /// Neighbouring rows of equal length; with a cache each row is alone. `prefix` of the `past` tokens have
  /// keys and values that are not in the cache: virtual ones, or those of a first row that all share.
  struct Run {
    int64_t first_row, rows, length, past, prefix;
    int64_t tokens() const { return rows * length; }
  };
  void pad_rows();
  bool drops() const { return lines_.seed.defined() && rule_.dropout > 0; }
  /// Does this run need no mask, for the fused kernel's causal one is all there is?
  bool is_plain(Run const& run, int64_t window) const;
  void make_masks(std::vector<int64_t> const& windows);
  at::Tensor padded(at::Tensor const& x) const {
    return to_padded_.defined() ? x.index_select(0, to_padded_) : x;
  }
  /// What stands in front of each row's keys (values, at index + 1), given those of all tokens.
  at::Tensor in_front(at::Tensor const& all, int64_t index) const;
  at::Tensor before(Run const& run, at::Tensor const& own, at::Tensor const& front) const;
  at::Tensor attend_run(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, Run const& run,
                        int64_t layer, int64_t window) const;
  /// What attend_run adds to the scores: where to look (bool), or with ALiBi how much less (compute type).
  at::Tensor make_mask(int64_t length, int64_t past, int64_t window) const;
  /// Is one call of causal_attention() all there is to do?
  bool is_causal(at::Tensor const& q) const;
  at::Tensor attend_causal(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, int64_t layer,
                           int64_t window) const;
  CausalRule causal_rule(size_t first_row, int64_t past, int64_t window) const;
  /// The keys (values) of each row from `first_row` on behind those in front.
  at::Tensor behind(at::Tensor const& front, at::Tensor const& own, size_t first_row) const;
  /// Can all rows' one token each be looked at in one loop over host memory?
  bool decodes_on_host(at::Tensor const& q) const;
  at::Tensor decode(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, int64_t layer,
                    int64_t window) const;
  at::Tensor attend_one(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v) const;
  /// Which weights dropout keeps, bool [rows, heads, length, past + length], or undefined for all.
  at::Tensor kept_weights(Run const& run, int64_t heads, int64_t layer) const;
  at::Tensor weigh(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v,
                   std::optional<at::Tensor> const& mask, at::Tensor const& kept, bool causal) const;

  std::vector<Run> runs_;
  std::vector<int64_t> lengths_, ends_;  ///< [rows]: tokens, and one beyond the last position
  at::Tensor
      to_padded_;  ///< int64 [rows · longest]: the token at each padded place; a row's last one fills it up
  at::Tensor from_padded_;  ///< int64 [N], the other way; both undefined where nothing is padded
  std::vector<int64_t> split_sizes_;
  at::Tensor positions_, keys_values_;
  int64_t end_position_ = 0, shared_ = 0;  ///< shared_: tokens of a first row that all begin with
  KvCache* cache_;                         ///< the caller's
  DropoutLines lines_;
  ScoreRule rule_;
  c10::Device device_;
  std::map<std::tuple<int64_t, int64_t, int64_t>, at::Tensor> masks_;  ///< by length, past and window
};

}  // namespace fsllm::detail
