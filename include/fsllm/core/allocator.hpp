// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fsllm {

/// From now on freed memory stays with the process: activations are freed and asked for again in every step,
/// and pages that are kept need not be cleared each time. Tensors come from malloc, not from glibc's
/// posix_memalign, which does not find the blocks of its own size that were freed before.
void keep_freed_memory();

}  // namespace fsllm
