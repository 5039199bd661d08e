// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/io/handed_files.hpp"

namespace fsllm {

/// The files of a folder that every rank looks into while it starts, beside the weights: configuration and
/// tokenizer of a model or an adapter.
std::vector<std::filesystem::path> small_files(std::filesystem::path const& folder);

/// Collective: one rank of each node reads `files`, as it finds them, for all of its node. What cannot be
/// read is left to whoever wants it.
void hand_files(HandedFiles& handed, std::vector<std::filesystem::path> const& files,
                Communicator const& comm);

}  // namespace fsllm
