// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace fsllm {

/// How matrices are multiplied on this processor, as "fp32 by oneDNN, bf16 by oneDNN, fp16 in fp32": fp32 by
/// MKL, or by oneDNN where MKL would leave AVX-512 unused (processors that are not Intel's; measured on Zen
/// 5: 105 GFLOP/s a core by MKL, 205 to 250 by oneDNN); halves in fp32 and rounded once where the processor
/// has no instructions for them (LibTorch's own kernels for fp16: 3 to 25 GFLOP/s).
std::string matmul_kernels();

/// From now on at::mm and at::addmm on the CPU, autograd's too, compute as matmul_kernels() says where
/// matrices are large enough to gain. The choice depends on shapes alone, so the same product has the same
/// bits.
void use_matmul_kernels();

}  // namespace fsllm
