// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fsllm {

/// Which library multiplies fp32 matrices on this processor: MKL, or oneDNN where MKL would leave AVX-512
/// unused (processors that are not Intel's; measured on Zen 5: 105 GFLOP/s a core by MKL, 205 to 250 by
/// oneDNN).
char const* matmul_library();

/// From now on at::mm and at::addmm of fp32 matrices on the CPU, autograd's too, run by matmul_library()
/// where they are large enough to gain. The choice depends on shapes alone, so the same product has the same
/// bits.
void use_matmul_library();

}  // namespace fsllm
