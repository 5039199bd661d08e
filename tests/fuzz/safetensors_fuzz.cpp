// SPDX-License-Identifier: Apache-2.0
// A safetensors file: an Error, or tensors of which every byte can be read.
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "fsllm/core/error.hpp"
#include "fsllm/io/safetensors.hpp"
#include "memory_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  fsllm::test::MemoryFile const file(data, size);
  try {
    fsllm::SafetensorsReader const reader(file.path());
    unsigned sum = 0;
    for (auto const& [_, tensor] : reader.tensors()) {
      auto const* const bytes = static_cast<uint8_t const*>(tensor.const_data_ptr());
      for (size_t i = 0; i < tensor.nbytes(); ++i) sum += bytes[i];
    }
    [[maybe_unused]] unsigned volatile const read = sum;
  } catch (fsllm::Error const&) {
  }
  return 0;
}
