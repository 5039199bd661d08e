// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/collective.hpp"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

struct Layout {
  std::string name;
  Communicator node;
};

/// This machine as one node, as two, and as a node for each rank.
std::vector<Layout> node_layouts() {
  auto const world = Communicator::world();
  return {{"one node", world.split_by_node()},
          {"two nodes", world.split(world.rank() % 2, world.rank())},
          {"two nodes, the first with rank 0 alone", world.split(world.rank() == 0 ? 0 : 1, world.rank())},
          {"a node a rank", Communicator::self()}};
}

/// Tensors of every type that sums allow, small integers so that sums are exact; rank r holds r + 1 times
/// these.
TensorMap example(int times) {
  TensorMap map;
  for (auto type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong})
    for (int64_t size : {1, 7, 250})
      map.emplace(fmt::format("{}.{}", c10::toString(type), size),
                  at::arange(size, at::kLong).remainder(13).mul(times).to(type));
  map.emplace("empty", at::empty({0, 3}, at::kFloat));
  map.emplace("scalar", at::full({}, 3.0 * times, at::kFloat));
  map.emplace("transposed", at::arange(12, at::kFloat).mul(times).view({3, 4}).t());
  map.emplace("half column", at::arange(12, at::kHalf).mul(times).view({3, 4}).select(1, 2));
  return map;
}

void expect_equal(TensorMap const& a, TensorMap const& b, std::string const& what) {
  for (auto const& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << what << ": " << name;
}

TEST(Collective, BroadcastAndSumForEveryRootLayoutAndChunk) {
  auto const world = Communicator::world();
  int const all_times = world.size() * (world.size() + 1) / 2;
  for (auto const& [layout, node] : node_layouts()) {
    for (int64_t chunk : {128, 1000, 1 << 20}) {
      auto const collective = make_host_collective(world, node, chunk);
      for (int root = 0; root < world.size(); ++root) {
        auto const what = fmt::format("{}, chunk {}, root {}", layout, chunk, root);
        auto map = example(world.rank() + 1);
        collective->broadcast(map, root);
        expect_equal(map, example(root + 1), "broadcast, " + what);
        map = example(world.rank() + 1);
        collective->reduce_sum(map, root);
        if (world.rank() == root) expect_equal(map, example(all_times), "sum, " + what);
        std::vector<int64_t> integers(333, std::numeric_limits<int64_t>::max() - world.rank());
        collective->reduce_sum(integers, root);
        auto wrapped = uint64_t{0};
        for (int rank = 0; rank < world.size(); ++rank)
          wrapped += static_cast<uint64_t>(std::numeric_limits<int64_t>::max() - rank);
        if (world.rank() == root) {
          EXPECT_THAT(integers, testing::Each(static_cast<int64_t>(wrapped))) << what;
        }
      }
    }
  }
}

TEST(Collective, BytesOfAnyTypeAreBroadcast) {
  auto const collective = make_host_collective(Communicator::world());
  int const root = Communicator::world().size() - 1;
  bool const sends = Communicator::world().rank() == root;
  TensorMap map;
  for (auto type : {at::kInt, at::kByte, at::kBool, at::kFloat8_e4m3fn})
    map.emplace(c10::toString(type), at::full({5}, sends ? 1 : 0, at::kInt).to(type));
  map.emplace("nan", at::full({2}, sends ? std::numeric_limits<double>::quiet_NaN() : 0.0, at::kFloat));
  collective->broadcast(map, root);
  EXPECT_TRUE(map.at("nan").isnan().all().item<bool>());
  map.erase("nan");
  for (auto const& [name, tensor] : map) EXPECT_TRUE(tensor.to(at::kInt).eq(1).all().item<bool>()) << name;
}

TEST(Collective, FloatsAreAddedInRankOrder) {
  auto const world = Communicator::world();
  auto const collective = make_host_collective(world, 4096);
  auto const values_of = [](int rank) {
    Philox random(5, Purpose::test, static_cast<uint64_t>(rank));
    std::vector<float> values(5000);
    for (auto& value : values) value = static_cast<float>(random.normal() * std::pow(10.0, random.normal()));
    return values;
  };
  auto mine = values_of(world.rank());
  TensorMap map{{"v", at::from_blob(mine.data(), {5000}, at::kFloat)}};
  collective->reduce_sum(map, 0);
  if (world.rank() != 0) return;
  auto expected = values_of(0);
  for (int rank = 1; rank < world.size(); ++rank) {
    auto const others = values_of(rank);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += others[i];
  }
  EXPECT_EQ(mine, expected);
}

TEST(Collective, BFloat16IsAddedInFloat) {
  auto const world = Communicator::world();
  auto const collective = make_host_collective(world);
  // 256 + 1 is not a bf16 number: adding in bf16 would lose every 1 but the sum of all is one at four ranks.
  TensorMap map{{"v", at::full({3}, world.rank() == 0 ? 256.0 : 1.0, at::kBFloat16)}};
  collective->reduce_sum(map, 0);
  auto const expected = at::full({3}, 256.0 + world.size() - 1, at::kFloat).to(at::kBFloat16);
  if (world.rank() != 0) return;
  EXPECT_TRUE(at::equal(map.at("v"), expected));
}

TEST(Collective, OnlyTheTensorsElementsAreTouched) {
  auto const world = Communicator::world();
  auto const collective = make_host_collective(world);
  auto const whole = at::full({4, 4}, world.rank(), at::kFloat);
  TensorMap map{{"column", whole.select(1, 1)}};
  collective->broadcast(map, world.size() - 1);
  EXPECT_EQ(whole.sum().item<float>(), 12.0f * world.rank() + 4.0f * (world.size() - 1));
}

TEST(Collective, ParametersWithGradientsTravel) {
  auto const world = Communicator::world();
  auto const collective = make_host_collective(world);
  TensorMap map{{"w", at::full({2}, world.rank() + 1.0, at::kFloat).requires_grad_()}};
  collective->reduce_sum(map, 0);
  collective->broadcast(map, 0);
  EXPECT_TRUE(map.at("w").requires_grad());
  EXPECT_EQ(map.at("w").detach()[0].item<float>(), world.size() * (world.size() + 1) / 2.0f);
}

TEST(Collective, ManySmallCallsKeepTheirOrder) {
  auto const world = Communicator::world();
  for (auto const& [layout, node] : node_layouts()) {
    auto const collective = make_host_collective(world, node, 128);
    TensorMap map{{"v", at::ones({20}, at::kDouble)}};
    double expected = 1;
    for (int i = 0; i < 40; ++i) {
      int const root = i % world.size();
      collective->reduce_sum(map, root);
      map.at("v").div_(world.size()).add_(1);
      collective->broadcast(map, root);
      expected += 1;
      ASSERT_EQ(map.at("v").sum().item<double>(), 20 * expected) << layout << ", call " << i;
    }
  }
}

TEST(Collective, EmptyMapsAndOneRank) {
  auto const collective = make_host_collective(Communicator::world());
  TensorMap map;
  collective->broadcast(map, 0);
  collective->reduce_sum(map, 0);
  collective->reduce_sum(std::span<int64_t>(), 0);
  auto const alone = make_host_collective(Communicator::self());
  map = example(2);
  alone->broadcast(map, 0);
  alone->reduce_sum(map, 0);
  expect_equal(map, example(2), "alone");
  EXPECT_EQ(alone->traffic().broadcast_bytes + alone->traffic().reduce_bytes, 0);
}

TEST(Collective, TrafficCountsTheBytesHandedOver) {
  auto const world = Communicator::world();
  if (world.size() == 1) return;
  auto const collective = make_host_collective(world);
  TensorMap map{{"f", at::zeros({100}, at::kFloat)}, {"h", at::zeros({10}, at::kHalf)}};
  collective->broadcast(map, 0);
  EXPECT_EQ(collective->traffic().broadcast_bytes, world.rank() == 0 ? 420 : 0);
  collective->reduce_sum(map, 0);
  EXPECT_EQ(collective->traffic().reduce_bytes, 440);
  std::vector<int64_t> integers(4);
  collective->reduce_sum(integers, 0);
  EXPECT_EQ(collective->traffic().reduce_bytes, 472);
}

TEST(Collective, IntegersOfOtherWidthsHaveNoSum) {
  auto const collective = make_host_collective(Communicator::world());
  TensorMap map{{"steps", at::zeros({1}, at::kInt)}};
  EXPECT_ERROR(collective->reduce_sum(map, 0), "tensor steps of type Int cannot be added across ranks");
}

TEST(LayoutCheck, NamesTheFirstDifference) {
  auto const world = Communicator::world();
  TensorMap const common{{"a", at::zeros({2})}, {"b", at::zeros({3, 4})}};
  EXPECT_NO_THROW(check_layout_across_ranks(world, common, "sum"));
  int const last = world.size() - 1;
  if (last == 0) return;
  auto const differing = [&](char const* name, at::Tensor const& tensor) {
    TensorMap map = common;
    if (world.rank() == last) map[name] = tensor;
    return map;
  };
  auto const other = fmt::format("rank {}: ", last);
  EXPECT_ERROR(check_layout_across_ranks(world, differing("b", at::zeros({4, 3})), "sum"),
               "(rank 0: b [3, 4] Float; " + other + "b [4, 3] Float)");
  EXPECT_ERROR(check_layout_across_ranks(world, differing("b", at::zeros({3, 4}, at::kHalf)), "sum"),
               other + "b [3, 4] Half)");
  EXPECT_ERROR(check_layout_across_ranks(world, differing("c", at::zeros({1})), "sum"),
               "(rank 0: nothing; " + other + "c [1] Float)");
  EXPECT_ERROR(check_layout_across_ranks(world, common, world.rank() == last ? "sum" : "broadcast"),
               "(rank 0: broadcast; " + other + "sum)");
#ifdef FSLLM_DEBUG
  auto const collective = make_host_collective(world);
  auto map = differing("c", at::zeros({1}));
  EXPECT_ERROR(collective->broadcast(map, 0), "ranks disagree on what to exchange");
  EXPECT_ERROR(collective->reduce_sum(map, 0), "ranks disagree on what to exchange");
  std::vector<int64_t> integers(world.rank() == last ? 4 : 5);
  EXPECT_ERROR(collective->reduce_sum(integers, 0), "sum of 4 integers");
#endif
}

/// Values of rank `rank` that have a digit of their own in every place of a float.
at::Tensor values_of(int rank, int64_t elements, at::ScalarType type) {
  return at::arange(elements, at::kDouble).mul(0.37).sin().mul(std::exp2(7 * rank)).to(type);
}

TEST(Collective, PartsMeetInTheOrderOfRanks) {
  auto const world = Communicator::world();
  int const ranks = world.size(), rank = world.rank();
  auto const collective = make_host_collective(world);
  for (auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    std::vector<at::Tensor> whole, sums, expected;
    // Of the last one in doubles, more is received than at once.
    for (int64_t elements : {1, 100, 4000, type == at::kDouble ? 9000000 : 70000}) {
      auto const size = partition_size(elements, ranks);
      whole.push_back(values_of(rank % 2, size * ranks, type));
      auto const wide = type == at::kDouble ? at::kDouble : at::kFloat;
      sums.push_back(at::ones({size}, wide));
      auto sum = at::zeros({size}, wide);
      for (int other = 0; other < ranks; ++other)
        sum = sum.add(values_of(other % 2, size * ranks, type).narrow(0, rank * size, size));
      expected.push_back(sum.add(1));
    }
    collective->reduce_scatter(whole, sums)->finish();
    for (size_t i = 0; i < sums.size(); ++i) EXPECT_TRUE(at::equal(sums[i], expected[i])) << type << " " << i;

    for (auto const& tensor : whole) {
      auto const size = tensor.size(0) / ranks;
      auto const mine = tensor.narrow(0, rank * size, size).clone();
      tensor.zero_();
      tensor.narrow(0, rank * size, size).copy_(mine);
    }
    auto const first = collective->all_gather({whole[0], whole[1]});
    auto const second = collective->all_gather({whole[2], whole[3]});  // two under way at once
    second->finish();
    first->finish();
    for (auto const& tensor : whole)
      for (int other = 0; other < ranks; ++other) {
        auto const size = tensor.size(0) / ranks;
        EXPECT_TRUE(at::equal(tensor.narrow(0, other * size, size),
                              values_of(other % 2, size * ranks, type).narrow(0, other * size, size)));
      }
  }
}

TEST(Collective, AllReduceAndPartitionSize) {
  auto const world = Communicator::world();
  auto const collective = make_host_collective(world);
  auto const a = at::full({3, 5}, world.rank() + 1.0, at::kFloat);
  auto const b = at::full({7}, 10.0 * (world.rank() + 1), at::kFloat);
  all_reduce_sum(*collective, {a, b});
  double const times = world.size() * (world.size() + 1) / 2.0;
  EXPECT_TRUE(at::equal(a, at::full({3, 5}, times, at::kFloat)));
  EXPECT_TRUE(at::equal(b, at::full({7}, 10 * times, at::kFloat)));
  EXPECT_EQ(sum_in_order(world, world.rank() + 1.0), times);
  EXPECT_EQ(partition_size(1, 4), 16);
  EXPECT_EQ(partition_size(64, 4), 16);
  EXPECT_EQ(partition_size(65, 4), 32);
  EXPECT_EQ(partition_size(0, 3), 0);
}

}  // namespace
}  // namespace fsllm
