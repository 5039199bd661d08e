// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>

namespace fsllm {

/// From here on a read of these mapped bytes that the file no longer has (it was cut) ends the process with
/// exit code 2 and the file's name, not with SIGBUS.
void guard_mapping(std::byte const* data, size_t size, std::filesystem::path const& file);
void release_mapping(std::byte const* data);
/// Do these bytes lie in a mapping that is guarded?
bool is_guarded(std::span<std::byte const> bytes);

}  // namespace fsllm
