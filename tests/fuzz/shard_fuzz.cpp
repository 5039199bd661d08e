// SPDX-License-Identifier: Apache-2.0
// A client shard: an Error, or one that can be summarised.
#include <cstdlib>

#include "fsllm/core/error.hpp"
#include "fsllm/io/shard.hpp"
#include "memory_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  fsllm::test::MemoryFile const file(data, size);
  try {
    auto const shard = fsllm::read_shard(file.path());
    auto const summary = fsllm::summarize(shard, "");
    if (summary.train.targets > summary.train.tokens) std::abort();
  } catch (fsllm::Error const&) {
  }
  return 0;
}
