// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <c10/core/Device.h>

#include <cstdint>

namespace fsllm {

/// Bytes of live tensors on a GPU; 0 for the CPU.
int64_t device_bytes_in_use(c10::Device device);

/// Gives back to a GPU what the allocator keeps for later tensors, so that other processes may have it.
void release_unused_device_memory(c10::Device device);

}  // namespace fsllm
