// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>

#include "fsllm/io/checkpoint.hpp"

namespace fsllm {

/// A checkpoint as one HDF5 file: /layout (JSON: sections, names, shapes, types, offsets), /tensors/N (raw
/// bytes of section N, each tensor on a 64-byte boundary) and /texts/N. Reading gives back the same bits.
void write_state_file(std::filesystem::path const& path, Checkpoint const& checkpoint);
Checkpoint read_state_file(std::filesystem::path const& path);

}  // namespace fsllm
