// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/fixed_point.hpp"

#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

constexpr int kBits = 48;

/// Random values over many magnitudes, the same for a client wherever it is made.
at::Tensor random_tensor(uint64_t client, std::vector<int64_t> const& shape, at::ScalarType type) {
  auto const tensor = at::zeros(shape, at::kDouble);
  Philox random(3, Purpose::test, client, static_cast<uint64_t>(type));
  for (int64_t i = 0; i < tensor.numel(); ++i)
    tensor.mutable_data_ptr<double>()[i] = random.normal() * std::exp(3 * random.normal());
  return tensor.clamp(-4000, 4000).to(type);
}

TensorMap update_of(uint64_t client) {
  return {{"a", random_tensor(client, {40, 30}, at::kFloat)},
          {"b", random_tensor(client, {7}, at::kDouble)},
          {"c", random_tensor(client, {33}, at::kBFloat16)},
          {"d", random_tensor(client, {8, 4}, at::kFloat).t()},
          {"e", at::zeros({0})}};
}

double weight_of(uint64_t client) {
  return (static_cast<double>(client) + 1) / 37;
}

TEST(FixedPointSum, SameBitsForAnyNumberOfRanks) {
  auto const world = Communicator::world();
  auto const collective = make_host_collective(world, 2048),
             alone = make_host_collective(Communicator::self());
  constexpr uint64_t kClients = 11;
  FixedPointSum shared(update_of(0), kBits), single(update_of(0), kBits);
  for (uint64_t client = 0; client < kClients; ++client)
    if (static_cast<int>(client % static_cast<uint64_t>(world.size())) == world.rank())
      shared.add(update_of(client), weight_of(client), "client");
  for (uint64_t client = kClients; client-- > 0;) single.add(update_of(client), weight_of(client), "client");
  int const root = world.size() - 1;
  shared.reduce(*collective, root);
  single.reduce(*alone, 0);
  if (world.rank() != root) return;
  EXPECT_EQ(shared.weight(), single.weight());
  auto const expected = single.mean(), mean = shared.mean();
  for (auto const& [name, tensor] : expected) {
    EXPECT_EQ(mean.at(name).scalar_type(), update_of(0).at(name).scalar_type());
    EXPECT_TRUE(at::equal(mean.at(name), tensor)) << name;
  }
}

TEST(FixedPointSum, MeanIsTheWeightedMean) {
  FixedPointSum sum(update_of(0), kBits);
  double weights = 0;
  TensorMap expected;
  for (uint64_t client = 0; client < 5; ++client) {
    sum.add(update_of(client), weight_of(client), "client");
    weights += weight_of(client);
    for (auto const& [name, tensor] : update_of(client)) {
      auto const term = tensor.to(at::kDouble).mul(weight_of(client));
      expected[name] = expected.count(name) != 0 ? expected[name].add(term) : term;
    }
  }
  EXPECT_NEAR(sum.weight(), weights, 1e-14);
  for (auto const& [name, tensor] : sum.mean()) {
    double const tolerance = name == "c" ? 2.0 : 1e-4;
    EXPECT_TRUE(test::tensors_near(tensor, expected[name].div(weights), tolerance)) << name;
    EXPECT_EQ(tensor.sizes(), expected[name].sizes());
  }
}

/// The integer that one value becomes: its mean at weight 1, in units.
double rounded_units(double value, int bits) {
  FixedPointSum sum({{"x", at::zeros({1}, at::kDouble)}}, bits);
  sum.add({{"x", at::full({1}, value, at::kDouble)}}, 1, "client");
  return std::ldexp(sum.mean().at("x").item<double>(), bits);
}

/// Updates of 1e-7 over 1,000 rounds: nothing vanishes and nothing drifts, where sums in Q16.16 (unit 2^-16,
/// cut downwards) lose all of it.
TEST(FixedPointSum, SmallUpdatesAddUpWithoutBias) {
  constexpr int kRounds = 1000, kClients = 3, kCount = 100;
  auto const collective = make_host_collective(Communicator::self());
  TensorMap const layout{{"w", at::zeros({kCount}, at::kDouble)}};
  auto exact = at::zeros({kCount}, at::kDouble), ours = exact.clone(), coarse = exact.clone();
  double bias = 0;
  for (uint64_t round = 0; round < kRounds; ++round) {
    FixedPointSum sum(layout, kBits);
    auto mean = at::zeros({kCount}, at::kDouble), cut = mean.clone();
    for (uint64_t client = 0; client < kClients; ++client) {
      auto const update = at::zeros({kCount}, at::kDouble);
      Philox random(5, Purpose::test, client, round);
      for (int i = 0; i < kCount; ++i) update.mutable_data_ptr<double>()[i] = 1e-7 * (1 + random.normal());
      double const weight = weight_of(client) / (weight_of(0) + weight_of(1) + weight_of(2));
      sum.add({{"w", update}}, weight, "client");
      mean.add_(update, weight);
      cut.add_(update.mul(weight * 0x1p16).floor().mul(0x1p-16));
    }
    sum.reduce(*collective, 0);
    auto const got = sum.mean().at("w");
    bias += got.sub(mean).sum().item<double>();
    exact.add_(mean);
    ours.add_(got);
    coarse.add_(cut);
  }
  double const size = exact.abs().mean().item<double>(), unit = 0x1p-48;
  EXPECT_NEAR(size, 1e-4, 1e-5);
  EXPECT_LT(ours.sub(exact).abs().max().item<double>(), 1e-8 * size);
  // Rounding of 3 values of ±1/2 unit each, uniform: the mean over all is 0 within 5 deviations.
  EXPECT_LT(std::fabs(bias) / (kRounds * kCount), 5 * 0.5 * unit / std::sqrt(1.0 * kRounds * kCount));
  EXPECT_GT(coarse.sub(exact).abs().mean().item<double>(), 10 * size) << "the test would see a coarse sum";
}

TEST(FixedPointSum, RoundsToNearestEven) {
  // 2 bits: the unit is 1/4.
  EXPECT_EQ(rounded_units(0.125, 2), 0);
  EXPECT_EQ(rounded_units(0.375, 2), 2);
  EXPECT_EQ(rounded_units(0.625, 2), 2);
  EXPECT_EQ(rounded_units(-0.375, 2), -2);
  EXPECT_EQ(rounded_units(-0.1251, 2), -1);
  EXPECT_EQ(rounded_units(0.1249, 2), 0);
  // Beyond 2^51 units another loop rounds.
  for (double units : {0x1p51 - 0.5, 0x1p51 + 0.5, 0x1p51 + 1.5, -0x1p51 - 0.5, -0x1p51 + 0.5, 0x1p52 + 1,
                       0x1.fffffffffffffp61})
    EXPECT_EQ(rounded_units(std::ldexp(units, -2), 2), std::nearbyint(units)) << units;
}

/// A client's integers exist before they are added: masks that two clients agree upon go away in the sum.
/// Sums of every size, of both signs, become the double next to them, with vectors and in the rest of a loop.
TEST(FixedPointSum, MeanRoundsTheSumOnce) {
  constexpr int64_t kCount = 1003;
  FixedPointSum sum({{"x", at::zeros({kCount}, at::kDouble)}}, 20);
  std::vector<int64_t> values(kCount + 2);
  Philox random(11, Purpose::test);
  for (int64_t i = 0; i < kCount; ++i)
    values[static_cast<size_t>(i)] =
        static_cast<int64_t>(random.normal() * std::ldexp(1.0, 4 + static_cast<int>(i % 56))) + i;
  values[kCount + 1] = 3 << 20;
  sum.add(values);
  auto const mean = sum.mean().at("x");
  for (int64_t i = 0; i < kCount; ++i)
    EXPECT_EQ(mean[i].item<double>(), static_cast<double>(values[static_cast<size_t>(i)]) / (3 << 20)) << i;
}

TEST(FixedPointSum, MasksOfPairsCancel) {
  FixedPointSum plain(update_of(0), kBits), masked(update_of(0), kBits);
  Philox random(7, Purpose::test);
  auto a = plain.encode(update_of(1), 0.3, "a"), b = plain.encode(update_of(2), 0.7, "b");
  plain.add(a);
  plain.add(b);
  for (size_t i = 0; i < a.size(); ++i) {
    auto const mask = random.next_u64();
    a[i] = static_cast<int64_t>(static_cast<uint64_t>(a[i]) + mask);
    b[i] = static_cast<int64_t>(static_cast<uint64_t>(b[i]) - mask);
  }
  masked.add(a);
  masked.add(b);
  for (auto const& [name, tensor] : plain.mean()) EXPECT_TRUE(tensor.equal(masked.mean().at(name))) << name;
}

TEST(FixedPointSum, OppositeUpdatesCancelExactly) {
  FixedPointSum sum({{"x", at::zeros({1000})}}, kBits);
  auto const update = random_tensor(1, {1000}, at::kFloat);
  sum.add({{"x", update}}, 0.3, "a");
  sum.add({{"x", update.neg()}}, 0.3, "b");
  EXPECT_TRUE(at::equal(sum.mean().at("x"), at::zeros({1000})));
}

TEST(FixedPointSum, ErrorsNameTensorAndClient) {
  TensorMap const layout{{"lora_A", at::zeros({600})}};
  double const nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  auto const add = [&](double value, double weight) {
    auto const values = at::zeros({600});
    values.mutable_data_ptr<float>()[599] = static_cast<float>(value);
    FixedPointSum(layout, kBits).add({{"lora_A", values}}, weight, "client 7");
  };
  EXPECT_ERROR(add(nan, 1), "weighted update of lora_A by client 7 holds a value that is not finite");
  EXPECT_ERROR(add(-inf, 1), "not finite");
  EXPECT_ERROR(add(inf, 0), "not finite");
  EXPECT_ERROR(
      add(16384, 1),
      "lora_A by client 7 holds a value that is 16384 in magnitude (exact sums need values below 16384)");
  EXPECT_ERROR(add(-4, 4096), "is 16384 in magnitude");
  EXPECT_NO_THROW(add(16383.9, 1));
  EXPECT_ERROR(add(0, nan), "the weight of client 7 is nan");
  EXPECT_ERROR(add(0, inf), "the weight of client 7 is inf");
  EXPECT_ERROR(add(0, 16384), "the weight of client 7 is 16384 (must be finite and below 16384)");

  FixedPointSum sum(layout, kBits);
  EXPECT_ERROR(sum.add({{"lora_B", at::zeros({600})}}, 1, "client 7"),
               "update of client 7: tensor lora_A is missing");
  EXPECT_ERROR(sum.add({{"lora_A", at::zeros({6})}}, 1, "client 7"),
               "update of client 7: tensor lora_A is [6]");
  EXPECT_ERROR(sum.mean(), "no weight arrived");
  FixedPointSum integers({{"n", at::zeros({1}, at::kLong)}}, kBits);
  EXPECT_ERROR(integers.add({{"n", at::zeros({1}, at::kLong)}}, 1, "c"),
               "tensor n of type Long has no fixed-point sum");
  EXPECT_ERROR(FixedPointSum(layout, 1), "hpc.fixed_point_bits = 1 (must be in [2, 60])");
  EXPECT_ERROR(FixedPointSum(layout, 61), "hpc.fixed_point_bits = 61");
}

TEST(FixedPointSum, SumsThatCouldWrapAreRefused) {
  FixedPointSum sum({{"x", at::zeros({1})}}, kBits);
  TensorMap const large{{"x", at::full({1}, 16000.0)}};
  sum.add(large, 1, "a");
  EXPECT_NEAR(sum.mean().at("x").item<float>(), 16000, 1e-3);
  sum.add(large, 1, "b");
  EXPECT_NEAR(sum.mean().at("x").item<float>(), 16000, 1e-3);
  sum.add(large, 1, "c");
  EXPECT_ERROR(sum.mean(), "may together exceed the exact range of 32768 (hpc.fixed_point_bits = 48)");
}

}  // namespace
}  // namespace fsllm
