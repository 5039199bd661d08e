// SPDX-License-Identifier: Apache-2.0
#include "cpu_kernels.hpp"

#include <cstdlib>
#include <string>

namespace fsllm::detail {

int64_t room_of(CausalRows const& rows) {
  constexpr int64_t kMostLanes = 16, kWidestPanel = 64;  // of all instruction sets
  auto const up = [](int64_t count, int64_t to) { return (count + to - 1) / to * to; };
  int64_t const width = up(rows.dim, kMostLanes), columns = up(rows.longest, kWidestPanel);
  return columns * (4 * width + 2 * rows.dim + 1) + kCausalQueries * (4 * width + 2 * columns);
}

CpuKernels const* cpu_kernels() {
#ifdef __x86_64__
  static CpuKernels const* const kernels = [] {
    // What has AVX2 has F16C too; clang 14 cannot ask for it.
    char const* const given = std::getenv("ATEN_CPU_CAPABILITY");  // LibTorch's own limit
    std::string const limit = given == nullptr ? "" : given;
    if (!__builtin_cpu_supports("fma") || limit == "default") return static_cast<CpuKernels const*>(nullptr);
    if (__builtin_cpu_supports("avx512f") && limit != "avx2") return &kAvx512Kernels;
    return __builtin_cpu_supports("avx2") ? &kAvx2Kernels : nullptr;
  }();
  return kernels;
#else
  return nullptr;
#endif
}

}  // namespace fsllm::detail
