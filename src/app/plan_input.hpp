// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "memory_plan.hpp"
#include "setup.hpp"

namespace fsllm {

/// The largest forward pass of a rank: rows, tokens a row, and how many of these are scored.
struct PassShape {
  double rows = 1, length = 0, targets = 0;
  double tokens() const { return rows * length; }
};

/// What a user can choose to make a run smaller.
struct Choice {
  int64_t micro_batch = 0;  ///< rows (pairs) of a pass at most; 0: all that a rank has of a batch
  Checkpointing checkpointing = Checkpointing::none;
  std::string storage_dtype;
  GroupConfig group;
  int64_t ranks = 1, ranks_on_node = 1;
  bool gpu = false;
};
Choice chosen_by(Setup const& s, int64_t ranks, int64_t ranks_on_node, bool gpu);

/// Rows are measured in ready shards. Those that are not made yet are taken to have `longest` tokens, or as
/// many as allowed (0).
class PlanSource {
 public:
  PlanSource(Setup const& s, std::vector<ClientSource> sources, int64_t longest = 0);
  /// `passes` false: without what forward and backward passes take, which has to be counted by running some.
  PlanInput input(Choice const& choice, bool passes = true);
  PassShape largest_pass(Choice const& choice);
  int64_t clients_a_round() const;
  bool has_weights() const { return has_weights_; }

 private:
  /// Reads shards, so not before a pass is asked for.
  void measure_rows();
  /// What a model of one storage type and a way of checkpointing takes, counted once.
  struct Counted;
  Counted const& counted(Choice const& choice, bool passes);
  Setup const& s_;
  bool has_weights_;
  std::vector<ClientSource> sources_;
  double longest_ = 0, scored_ = 1;  ///< tokens of a row; of these, the part that is scored
  std::map<std::string, std::shared_ptr<Counted const>> counted_;
};

}  // namespace fsllm
