// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/huge_pages.hpp"

#include <sys/mman.h>

namespace fsllm {

void advise_huge_pages(void* begin, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = 4096;  // madvise() takes whole pages; the kernel uses the huge ones among them
  auto const first = (reinterpret_cast<uintptr_t>(begin) + kPage - 1) / kPage * kPage;
  auto const end = (reinterpret_cast<uintptr_t>(begin) + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

}  // namespace fsllm
