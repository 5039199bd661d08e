// SPDX-License-Identifier: Apache-2.0
// Stands in for nccl_collective.cpp in a build without CUDA.
#include "fsllm/comm/nccl.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {

bool is_cuda_build() {
  return false;
}

bool cuda_device_has_bf16(int) {
  return false;
}

int cuda_device_count() {
  return 0;
}

std::string cuda_device_uuid(int) {
  return "";
}

std::string cuda_device_cores(int) {
  return "";
}

CudaMemory cuda_memory(int) {
  return {};
}

std::unique_ptr<Collective> make_nccl_collective(Communicator const&, int, int64_t) {
  fail(
      "NCCL is not in this build (configured with FSLLM_CUDA=OFF). Build the preset cuda, or set use_gpu: "
      "False.");
}

}  // namespace fsllm
