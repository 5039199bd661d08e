// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace fsllm {

/// XXH64 with seed 0 (https://github.com/Cyan4973/xxHash): finds damaged and torn files at the speed of
/// memory. No protection against someone who wants to deceive; sha256 is for that.
uint64_t checksum64(std::span<std::byte const> bytes);
uint64_t checksum64_file(std::filesystem::path const& path);

}  // namespace fsllm
