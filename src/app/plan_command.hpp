// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "setup.hpp"

namespace fsllm {

/// Collective: --plan. Prints what memory the run takes by kind, what travels in a round, whether a node has
/// that memory, and if not what to change; nothing is trained, and no weights are read.
int plan_command(Setup const& s, Communicator const& comm);

}  // namespace fsllm
