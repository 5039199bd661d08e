// SPDX-License-Identifier: Apache-2.0
// The state file of a checkpoint: an Error, or tensors of which every byte can be read.
#include <ATen/core/Tensor.h>

#include "fsllm/core/error.hpp"
#include "memory_file.hpp"
#include "state_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  fsllm::test::MemoryFile const file(data, size);
  try {
    auto const checkpoint = fsllm::read_state_file(file.path());
    unsigned sum = 0;
    for (auto const& [_, section] : checkpoint.tensors)
      for (auto const& [name, tensor] : section) {
        auto const* const bytes = static_cast<uint8_t const*>(tensor.const_data_ptr());
        for (size_t i = 0; i < tensor.nbytes(); ++i) sum += bytes[i];
      }
    [[maybe_unused]] unsigned volatile const read = sum;
  } catch (fsllm::Error const&) {
  }
  return 0;
}
