// SPDX-License-Identifier: Apache-2.0
// NCCL gives what host collectives give. Needs one GPU a rank.
#include "fsllm/comm/nccl.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include <limits>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

class Nccl : public testing::Test {
 protected:
  void SetUp() override {
    int const gpus = cuda_device_count(), ranks = world_.split_by_node().size();
    if (world_.any(gpus < ranks))
      GTEST_SKIP() << "no GPU for each of " << ranks << " ranks here (" << gpus
                   << " found; a build without FSLLM_CUDA finds none)";
    device_ = world_.split_by_node().rank();
    nccl_ = make_nccl_collective(world_, device_, 4096);
    host_ = make_host_collective(world_);
  }
  /// Small integers of each type, so that any order of adding gives the same sum; rank r holds r + 1 times
  /// these.
  TensorMap example(at::Device device) const {
    TensorMap map;
    for (auto type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong})
      for (int64_t size : {1, 7, 2500})
        map.emplace(fmt::format("{}.{}", c10::toString(type), size),
                    at::arange(size, at::kLong).remainder(13).mul(world_.rank() + 1).to(device, type));
    map.emplace("transposed", at::arange(12, at::kFloat).mul(world_.rank() + 1).view({3, 4}).to(device).t());
    return map;
  }
  static void expect_equal(TensorMap const& a, TensorMap const& b) {
    for (auto const& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor.cpu(), b.at(name).cpu())) << name;
  }
  Communicator world_ = Communicator::world();
  int device_ = 0;
  std::unique_ptr<Collective> nccl_, host_;
};

TEST_F(Nccl, BroadcastsAndAddsAsTheHostDoes) {
  at::Device const gpu(at::kCUDA, static_cast<c10::DeviceIndex>(device_));
  for (auto const& device : {gpu, at::Device(at::kCPU)})
    for (int root = 0; root < world_.size(); ++root) {
      auto expected = example(at::kCPU), actual = example(device);
      host_->broadcast(expected, root);
      nccl_->broadcast(actual, root);
      expect_equal(actual, expected);
      expected = example(at::kCPU), actual = example(device);
      host_->reduce_sum(expected, root);
      nccl_->reduce_sum(actual, root);
      if (world_.rank() == root) expect_equal(actual, expected);
    }
}

TEST_F(Nccl, IntegersWrapAsOnTheHost) {
  std::vector<int64_t> expected(3333, std::numeric_limits<int64_t>::max() - world_.rank()), actual = expected;
  host_->reduce_sum(expected, 0);
  nccl_->reduce_sum(actual, 0);
  if (world_.rank() == 0) {
    EXPECT_EQ(actual, expected);
  }
}

TEST_F(Nccl, MemoryOfTheDeviceIsCounted) {
  auto const before = cuda_memory(device_);
  auto const held = at::full(
      {1 << 20}, 1.0,
      at::TensorOptions(at::kFloat).device(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device_))));
  EXPECT_EQ(cuda_memory(device_).allocated - before.allocated, int64_t{4} << 20);
}

}  // namespace
}  // namespace fsllm
