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

/// One file of a checkpoint that several ranks write.
struct CheckpointPart {
  std::string sha256;
  uint64_t bytes = 0;
};
/// Writes state.h5 (part 0) or state_1.h5, … into a folder under construction, flushed.
CheckpointPart write_checkpoint_part(std::filesystem::path const& made, int part,
                                     Checkpoint const& checkpoint);
/// Gives a folder of such parts (OutputFolder::fresh_folder) its name, as save_checkpoint.
void publish_checkpoint(OutputFolder& folder, std::string const& name, std::filesystem::path const& made,
                        int64_t round, std::vector<CheckpointPart> const& parts, int keep_last);

/// DIR/round_000010/state.h5 + manifest.json (SHA-256 of the state), where DIR is the subfolder `name` (""
/// for itself) of `folder`: written in its scratch, flushed, renamed; then all but the newest `keep_last` are
/// removed, and later rounds (from before a resume). A full disk is an Error and leaves older ones alone.
void save_checkpoint(OutputFolder& folder, std::string const& name, Checkpoint const& checkpoint,
                     int keep_last);

/// A checkpoint folder: its first part, and how many there are.
struct FoundCheckpoint {
  std::filesystem::path folder;
  int parts = 1;
  Checkpoint first;
};
/// The newest checkpoint whose checksums hold; damaged ones are skipped with a warning that names them.
/// Nothing usable: empty.
std::optional<FoundCheckpoint> find_newest_checkpoint(std::filesystem::path const& dir);
std::optional<Checkpoint> load_newest_checkpoint(std::filesystem::path const& dir);
/// The rounds of the checkpoints (damaged or not) in the folder, ascending.
std::vector<int64_t> checkpoint_rounds(std::filesystem::path const& dir);
/// Whether a checkpoint (damaged or not) lies in the folder.
bool holds_checkpoint(std::filesystem::path const& dir);
/// One part of a given checkpoint folder; damage is an Error.
Checkpoint load_checkpoint(std::filesystem::path const& round_dir, int part = 0);

}  // namespace fsllm
