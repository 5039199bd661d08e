// SPDX-License-Identifier: Apache-2.0
#include "cpu_kernels.hpp"

namespace fsllm::detail {

CpuKernels const* cpu_kernels() {
#ifdef __x86_64__
  static CpuKernels const* const kernels = [] {
    // What has AVX2 has F16C too; clang 14 cannot ask for it.
    if (!__builtin_cpu_supports("fma")) return static_cast<CpuKernels const*>(nullptr);
    if (__builtin_cpu_supports("avx512f")) return &kAvx512Kernels;
    return __builtin_cpu_supports("avx2") ? &kAvx2Kernels : nullptr;
  }();
  return kernels;
#else
  return nullptr;
#endif
}

}  // namespace fsllm::detail
