// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fsllm/core/packing.hpp"

namespace fsllm {

namespace detail {
struct PassPlan;
}

/// Which step of which client masks of dropout are drawn for.
struct DropoutKey {
  uint64_t seed = 0;
  int64_t client = 0, round = 0, step = 0;
};

/// Consecutive rows of a pass that belong to one client, and so to one adapter.
struct PassSegment {
  int64_t rows = 0;
  DropoutKey dropout;
  int64_t first_row = 0;  ///< rows of the client's step before these (micro-batches, accumulation)
  int64_t slot = -1;      ///< its adapter's values among Peft::slots(); -1: the live ones
  int64_t tokens = 0;     ///< of these rows; CausalLM::pass() counts them
};

struct PassOptions {
  Packing packing = Packing::pack;
  /// Of a pass that trains: whose its rows are, in order and all of them. None: nothing is dropped.
  std::vector<PassSegment> segments = {};
  /// The first row is what all others begin with, and they lack: their tokens come behind its own. Without a
  /// cache, segments and virtual tokens.
  bool shared_prefix = false;
};

/// What masks of dropout are drawn from, int64 tensors: a line of a mask has the 64-bit seed of its client's
/// step, the number of its row in that step, its place in the row (virtual tokens count) and, for attention
/// weights, its head.
struct DropoutLines {
  at::Tensor seed, row, place;
  at::Tensor head;  ///< undefined: 0
};

/// All that a forward pass needs beside its tokens and the weights: positions and their angles, who attends
/// to whom, whose the rows are, and what is dropped. CausalLM::pass() makes it; nothing changes it, models
/// keep none of it, so passes of one model can exist side by side. Copies are cheap.
class Pass {
 public:
  /// For modules by themselves, outside training.
  Pass() = default;
  /// For modules by themselves, in training: lines [N], one a token.
  explicit Pass(DropoutLines tokens) : tokens_(std::move(tokens)) {}
  Pass(std::shared_ptr<detail::PassPlan const> plan, DropoutLines tokens)
      : plan_(std::move(plan)), tokens_(std::move(tokens)) {}

  bool training() const { return tokens_.seed.defined(); }
  /// Lines [N] of the tokens, undefined outside training.
  DropoutLines const& tokens() const { return tokens_; }
  std::span<PassSegment const> segments() const;
  /// The pass as its tokens `index` (int64 [M], any order) see it: for what works on them alone, such as the
  /// head at the positions that are scored.
  Pass at(at::Tensor const& index) const;
  /// The pass as the layers see it: with the learned tokens before the rows.
  Pass with_virtual_tokens() const;
  /// Whether keys and values of earlier passes are used, and kept for later ones.
  bool has_cache() const;
  /// What hidden_states() appended to the cache is the rows' past from now on.
  void advance_cache() const;
  detail::PassPlan const& plan() const { return *plan_; }

 private:
  std::shared_ptr<detail::PassPlan const> plan_;
  DropoutLines tokens_;
};

}  // namespace fsllm
