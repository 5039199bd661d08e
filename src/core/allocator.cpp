// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/allocator.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace fsllm {
namespace {

constexpr size_t kAlignment = 64;

/// Gives back what allocate() took: the block of malloc stands in front of the values.
void release(void* values) {
  if (values != nullptr) std::free(static_cast<void**>(values)[-1]);
}

/// Values at multiples of 64 bytes inside what malloc gives.
struct AlignedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto const device = c10::Device(c10::kCPU);
    if (bytes == 0) return {nullptr, nullptr, release, device};
    size_t room = bytes + kAlignment;
    void* const block = std::malloc(room + sizeof(void*));
    if (block == nullptr) throw std::bad_alloc();
    void* values = static_cast<void**>(block) + 1;
    std::align(kAlignment, bytes, values, room);
    static_cast<void**>(values)[-1] = block;
    return {values, values, release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return release; }
  void copy_data(void* to, void const* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace

void keep_freed_memory() {
  static AlignedAllocator allocator;
  c10::SetCPUAllocator(&allocator);
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

}  // namespace fsllm
