// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <optional>

#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// What --check-env looks at beside ranks, cores, GPUs and messages.
struct EnvironmentPaths {
  std::filesystem::path shared;                ///< must be one folder for all nodes
  std::optional<std::filesystem::path> model;  ///< must be the same everywhere
};

/// Collective: prints what this allocation is made of, and what is wrong with it. 0, or kExitBadInput where a
/// run would fail or hang. Takes a few seconds.
int check_environment(EnvironmentPaths const& paths, Communicator const& world);

}  // namespace fsllm
