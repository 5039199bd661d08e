// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/device_memory.hpp"

#include <ATen/DeviceAccelerator.h>

namespace fsllm {

int64_t device_bytes_in_use(c10::Device device) {
  if (device.is_cpu()) return 0;
  auto const stats = at::accelerator::getDeviceStats(device.index());
  return stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].current;
}

void release_unused_device_memory(c10::Device device) {
  if (!device.is_cpu()) at::accelerator::emptyCache();
}

}  // namespace fsllm
