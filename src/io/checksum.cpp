// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/checksum.hpp"

#include <xxhash.h>

#include "fsllm/io/files.hpp"

namespace fsllm {

uint64_t checksum64(std::span<std::byte const> bytes) {
  return XXH64(bytes.data(), bytes.size(), 0);
}

uint64_t checksum64_file(std::filesystem::path const& path) {
  return checksum64(MappedFile(path).bytes());
}

}  // namespace fsllm
