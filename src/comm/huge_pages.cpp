// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/huge_pages.hpp"

#include <sys/mman.h>

#include <cstddef>

namespace fsllm {

void advise_huge_pages(void* begin, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr int64_t kPage = 4096;  // madvise() takes whole pages; the kernel uses the huge ones among them
  auto const before = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(begin) % kPage);
  int64_t const length = (bytes - before) / kPage * kPage;
  if (length > 0)
    madvise(static_cast<std::byte*>(begin) + before, static_cast<size_t>(length), MADV_HUGEPAGE);
#endif
}

}  // namespace fsllm
