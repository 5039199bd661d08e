// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/checksum.hpp"

#include <xxhash.h>

#include <algorithm>
#include <memory>

#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

constexpr size_t kHashedAtOnce = size_t{16} << 20;

}  // namespace

uint64_t checksum64(std::span<std::byte const> bytes) {
  return XXH64(bytes.data(), bytes.size(), 0);
}

uint64_t checksum64_file(std::filesystem::path const& path) {
  MappedFile const file(path);
  auto rest = file.bytes();
  std::unique_ptr<XXH64_state_t, decltype(&XXH64_freeState)> const state(XXH64_createState(),
                                                                         XXH64_freeState);
  XXH64_reset(state.get(), 0);
  while (!rest.empty()) {  // of a large file never more than a part is in this process's memory
    auto const part = rest.first(std::min(rest.size(), kHashedAtOnce));
    XXH64_update(state.get(), part.data(), part.size());
    forget_pages(part);
    rest = rest.subspan(part.size());
  }
  return XXH64_digest(state.get());
}

}  // namespace fsllm
