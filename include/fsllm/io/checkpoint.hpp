// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/io/output_folder.hpp"

namespace fsllm {

/// Everything a run needs to go on: named tensors, named texts (JSON, serialised state) by section.
struct Checkpoint {
  int64_t round = 0;                         ///< rounds completed
  std::map<std::string, TensorMap> tensors;  ///< "global", "server_optimizer", "client_17", "best", ...
  std::map<std::string, std::string> texts;  ///< "config", "early_stop", ...
};

/// DIR/round_000010/state.h5 + manifest.json (SHA-256 of the state), where DIR is the subfolder `name` (""
/// for itself) of `folder`: written in its scratch, flushed, renamed; then all but the newest `keep_last` are
/// removed, and later rounds (from before a resume). A full disk is an Error and leaves older ones alone.
void save_checkpoint(OutputFolder& folder, std::string const& name, Checkpoint const& checkpoint,
                     int keep_last);

/// The newest checkpoint whose checksum holds; damaged ones are skipped with a warning that names them.
/// Nothing usable: empty.
std::optional<Checkpoint> load_newest_checkpoint(std::filesystem::path const& dir);
/// The rounds of the checkpoints (damaged or not) in the folder, ascending.
std::vector<int64_t> checkpoint_rounds(std::filesystem::path const& dir);
/// Whether a checkpoint (damaged or not) lies in the folder.
bool holds_checkpoint(std::filesystem::path const& dir);
/// One given checkpoint folder; damage is an Error.
Checkpoint load_checkpoint(std::filesystem::path const& round_dir);

}  // namespace fsllm
