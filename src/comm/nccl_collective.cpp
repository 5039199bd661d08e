// SPDX-License-Identifier: Apache-2.0
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <tuple>

#include "fsllm/comm/nccl.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {
namespace {

void check_cuda(cudaError_t code, char const* what) {
  FSLLM_CHECK(code == cudaSuccess, "{} failed ({}). Check the GPU with nvidia-smi.", what,
              cudaGetErrorString(code));
}

void check_nccl(ncclResult_t code, char const* what) {
  FSLLM_CHECK(code == ncclSuccess,
              "{} failed ({}). Set NCCL_DEBUG=INFO for NCCL's own words, or use_gpu: False.", what,
              ncclGetErrorString(code));
}

ncclDataType_t nccl_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return ncclFloat32;
    case at::kDouble:
      return ncclFloat64;
    case at::kHalf:
      return ncclFloat16;
    case at::kBFloat16:
      return ncclBfloat16;
    case at::kLong:
      return ncclInt64;
    case at::kInt:
      return ncclInt32;
    case at::kByte:
      return ncclUint8;
    default:
      fail(fmt::format("tensors of type {} cannot travel over NCCL. Convert them first.",
                       c10::toString(type)));
  }
}

/// What was queued on one stream, for which another waits; the host does not.
class OnStream : public Exchange {
 public:
  OnStream(c10::cuda::CUDAStream stream, std::vector<at::Tensor> whole, std::vector<at::Tensor> parts = {},
           std::vector<at::Tensor> sums = {})
      : whole_(std::move(whole)), parts_(std::move(parts)), sums_(std::move(sums)) {
    done_.record(stream);
  }
  void finish() override {
    done_.block(c10::cuda::getCurrentCUDAStream(whole_.front().get_device()));
    for (size_t i = 0; i < sums_.size(); ++i) sums_[i].add_(parts_[i].to(sums_[i].device()));
    whole_.clear();
    parts_.clear();
  }

 private:
  at::cuda::CUDAEvent done_;
  std::vector<at::Tensor> whole_, parts_, sums_;
};

class NcclCollective : public Collective {
 public:
  NcclCollective(Communicator const& comm, int device, int64_t chunk_bytes)
      : comm_(comm), device_(static_cast<c10::DeviceIndex>(device)), chunk_(chunk_bytes / 8) {
    c10::cuda::CUDAGuard const guard(device_);
    ncclUniqueId id{};
    if (comm_.rank() == 0) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    std::string bytes(id.internal, sizeof(id.internal));
    comm_.broadcast(bytes, 0);
    std::memcpy(id.internal, bytes.data(), sizeof(id.internal));
    check_nccl(ncclCommInitRank(&nccl_, comm_.size(), id, comm_.rank()), "ncclCommInitRank");
  }
  ~NcclCollective() override { ncclCommDestroy(nccl_); }
  NcclCollective(NcclCollective const&) = delete;
  NcclCollective& operator=(NcclCollective const&) = delete;

  Communicator const& communicator() const override { return comm_; }
  Traffic traffic() const override {
    auto const& messages = comm_.traffic();
    return {traffic_.broadcast_bytes + messages.broadcast_bytes,
            traffic_.reduce_bytes + messages.reduce_bytes, traffic_.partition_bytes};
  }

  void broadcast(TensorMap& map, int root) override {
    check(map, "broadcast");
    comm_.meet();
    c10::cuda::CUDAGuard const guard(device_);
    for (auto& [name, tensor] : map) {
      auto on_gpu = tensor.detach().to(at::Device(at::kCUDA, device_)).contiguous();
      check_nccl(ncclBroadcast(on_gpu.data_ptr(), on_gpu.data_ptr(), static_cast<size_t>(on_gpu.numel()),
                               nccl_type(on_gpu.scalar_type()), root, nccl_, stream()),
                 "ncclBroadcast");
      if (comm_.rank() != root && !on_gpu.is_same(tensor)) tensor.detach().copy_(on_gpu);
      traffic_.broadcast_bytes += static_cast<int64_t>(on_gpu.nbytes());
    }
    check_cuda(cudaStreamSynchronize(stream()), "broadcast over NCCL");
  }

  void reduce_sum(TensorMap& map, int root) override {
    check(map, "reduce_sum");
    comm_.meet();
    c10::cuda::CUDAGuard const guard(device_);
    for (auto& [name, tensor] : map) {
      bool const half = tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16;
      auto on_gpu = tensor.detach()
                        .to(at::Device(at::kCUDA, device_), half ? at::kFloat : tensor.scalar_type())
                        .contiguous();
      check_nccl(ncclReduce(on_gpu.data_ptr(), on_gpu.data_ptr(), static_cast<size_t>(on_gpu.numel()),
                            nccl_type(on_gpu.scalar_type()), ncclSum, root, nccl_, stream()),
                 "ncclReduce");
      if (comm_.rank() == root && on_gpu.data_ptr() != tensor.data_ptr()) tensor.detach().copy_(on_gpu);
      traffic_.reduce_bytes += static_cast<int64_t>(on_gpu.nbytes());
    }
    check_cuda(cudaStreamSynchronize(stream()), "reduction over NCCL");
  }

  void reduce_sum(std::span<int64_t> values, int root) override {
    comm_.meet();
    c10::cuda::CUDAGuard const guard(device_);
    auto const total = static_cast<int64_t>(values.size());
    auto buffer = at::empty({std::min(total, chunk_)},
                            at::TensorOptions(at::kLong).device(at::Device(at::kCUDA, device_)));
    for (int64_t begin = 0; begin < total; begin += chunk_) {
      auto const count = static_cast<size_t>(std::min(chunk_, total - begin));
      auto* const host = values.data() + begin;
      check_cuda(cudaMemcpyAsync(buffer.data_ptr(), host, count * 8, cudaMemcpyHostToDevice, stream()),
                 "copy to the GPU");
      check_nccl(
          ncclReduce(buffer.data_ptr(), buffer.data_ptr(), count, ncclInt64, ncclSum, root, nccl_, stream()),
          "ncclReduce");
      if (comm_.rank() == root)
        check_cuda(cudaMemcpyAsync(host, buffer.data_ptr(), count * 8, cudaMemcpyDeviceToHost, stream()),
                   "copy from the GPU");
      check_cuda(cudaStreamSynchronize(stream()), "reduction over NCCL");
      traffic_.reduce_bytes += static_cast<int64_t>(count) * 8;
    }
  }

  std::unique_ptr<Exchange> all_gather(std::vector<at::Tensor> const& whole) override {
    c10::cuda::CUDAGuard const guard(device_);
    auto const side = side_stream();
    check_nccl(ncclGroupStart(), "ncclGroupStart");
    for (auto const& tensor : whole) {
      auto const size = tensor.numel() / comm_.size();
      auto* const begin = static_cast<std::byte*>(tensor.data_ptr());
      auto const offset = comm_.rank() * size * static_cast<int64_t>(tensor.element_size());
      check_nccl(ncclAllGather(begin + offset, begin, static_cast<size_t>(size),
                               nccl_type(tensor.scalar_type()), nccl_, side.stream()),
                 "ncclAllGather");
      traffic_.partition_bytes += static_cast<int64_t>(tensor.nbytes()) / comm_.size() * (comm_.size() - 1);
    }
    check_nccl(ncclGroupEnd(), "ncclAllGather");
    return std::make_unique<OnStream>(side, whole);
  }

  std::unique_ptr<Exchange> reduce_scatter(std::vector<at::Tensor> const& whole,
                                           std::vector<at::Tensor> const& sums) override {
    c10::cuda::CUDAGuard const guard(device_);
    std::vector<at::Tensor> wide, parts;
    for (auto const& tensor : whole) {
      wide.push_back(tensor.scalar_type() == at::kDouble ? tensor : tensor.to(at::kFloat));
      parts.push_back(at::empty({tensor.numel() / comm_.size()}, wide.back().options()));
    }
    auto const side = side_stream();
    check_nccl(ncclGroupStart(), "ncclGroupStart");
    for (size_t i = 0; i < wide.size(); ++i) {
      check_nccl(ncclReduceScatter(wide[i].const_data_ptr(), parts[i].data_ptr(),
                                   static_cast<size_t>(parts[i].numel()), nccl_type(parts[i].scalar_type()),
                                   ncclSum, nccl_, side.stream()),
                 "ncclReduceScatter");
      traffic_.partition_bytes += static_cast<int64_t>(parts[i].nbytes()) * (comm_.size() - 1);
    }
    check_nccl(ncclGroupEnd(), "ncclReduceScatter");
    return std::make_unique<OnStream>(side, wide, parts, sums);
  }

 private:
  /// A stream beside the one that computes, after all that is queued on that one now.
  c10::cuda::CUDAStream side_stream() {
    if (!side_) side_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device_);
    at::cuda::CUDAEvent ready;
    ready.record(c10::cuda::getCurrentCUDAStream(device_));
    ready.block(*side_);
    return *side_;
  }
  cudaStream_t stream() const { return c10::cuda::getCurrentCUDAStream(device_).stream(); }
  void check(TensorMap const& map, char const* what) const {
#ifdef FSLLM_DEBUG
    check_layout_across_ranks(comm_, map, what);
#else
    std::ignore = std::tie(map, what);
#endif
  }

  Communicator comm_;
  c10::DeviceIndex device_;
  int64_t chunk_;
  ncclComm_t nccl_ = nullptr;
  std::optional<c10::cuda::CUDAStream> side_;
  Traffic traffic_;
};

}  // namespace

bool is_cuda_build() {
  return true;
}

bool cuda_device_has_bf16(int device) {
  int major = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "cudaDeviceGetAttribute");
  return major >= 8;
}

int cuda_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::string cuda_device_uuid(int device) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  std::string text;
  for (char const byte : properties.uuid.bytes)
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

std::string cuda_device_cores(int device) {
  char id[32] = "";
  check_cuda(cudaDeviceGetPCIBusId(id, sizeof id, device), "cudaDeviceGetPCIBusId");
  std::string cores;
  auto const name = lower_case(id);
  std::getline(std::ifstream("/sys/bus/pci/devices/" + name + "/local_cpulist") >> std::ws, cores);
  return cores;
}

CudaMemory cuda_memory(int device) {
  auto const stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
  auto const& bytes = stats.allocated_bytes[0];
  return {bytes.current, bytes.peak};
}

std::unique_ptr<Collective> make_nccl_collective(Communicator const& comm, int device, int64_t chunk_bytes) {
  return std::make_unique<NcclCollective>(comm, device, chunk_bytes);
}

}  // namespace fsllm
