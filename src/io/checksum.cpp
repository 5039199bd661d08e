// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/checksum.hpp"

#include <xxhash.h>

namespace fsllm {

uint64_t checksum64(std::span<std::byte const> bytes) {
  return XXH64(bytes.data(), bytes.size(), 0);
}

}  // namespace fsllm
