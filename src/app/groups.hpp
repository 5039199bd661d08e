// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/comm/collective.hpp"
#include "setup.hpp"

namespace fsllm {

/// Ranks one after another train a client together; ranks of the same number in their groups meet between
/// rounds.
struct Groups {
  /// Collective.
  Groups(Setup const& s, Communicator const& world);
  Communicator across_ranks;
  std::unique_ptr<Collective> group;  ///< null: a rank trains a client alone
  std::unique_ptr<Collective> across;
};

/// Of a run: what checks and plans need not be started on as many ranks.
void check_group_size(Setup const& s, Communicator const& comm);

}  // namespace fsllm
