// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/fed/round.hpp"
#include "fsllm/io/checkpoint.hpp"

namespace fsllm::detail {

/// What a server goes on with, of a checkpoint that servers of any number of parts have written (or one of
/// whole tensors): its own part, or tensors whose parts are cut anew.
Checkpoint own_checkpoint(FoundCheckpoint& found, Federation const& federation);

/// Collective over the servers: each writes its part.
void save_checkpoint_parts(Federation const& federation, Checkpoint const& own, int keep_last);

}  // namespace fsllm::detail
