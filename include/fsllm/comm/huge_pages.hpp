// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

namespace fsllm {

/// Asks Linux for huge pages under memory that nobody has touched yet: a fault for each 4 KiB of a large sum
/// takes longer than adding to it. Values do not change, and without huge pages nothing happens.
void advise_huge_pages(void* begin, int64_t bytes);

}  // namespace fsllm
