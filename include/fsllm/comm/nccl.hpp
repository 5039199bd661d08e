// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>

#include "fsllm/comm/collective.hpp"

namespace fsllm {

/// Whether this program was built with CUDA.
bool is_cuda_build();
/// GPUs this process may use; 0 where this build has no CUDA or the machine has no driver.
int cuda_device_count();
/// The GPU's UUID in hexadecimal, for the placement table and to notice two ranks on one GPU.
std::string cuda_device_uuid(int device);
/// Hardware threads of its NUMA domain, as "0-15,32-47"; "" where the system does not say.
std::string cuda_device_cores(int device);
/// Does the GPU multiply bf16 matrices in hardware (compute capability 8.0 and above)?
bool cuda_device_has_bf16(int device);
/// Bytes that tensors hold on the GPU now, and the most they have held.
struct CudaMemory {
  int64_t allocated = 0, peak = 0;
};
CudaMemory cuda_memory(int device);

/// NCCL between the GPUs of the ranks of `comm`, one GPU a rank (NCCL refuses two ranks on one). Host tensors
/// and integers travel through a device buffer of `chunk_bytes`. An Error where this build has no CUDA.
/// Collective.
std::unique_ptr<Collective> make_nccl_collective(Communicator const& comm, int device,
                                                 int64_t chunk_bytes = 32 << 20);

}  // namespace fsllm
