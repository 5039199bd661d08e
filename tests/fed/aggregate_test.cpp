// SPDX-License-Identifier: Apache-2.0
// Weighted means of clients' updates over ranks, against the same mean in float64. Runs on 1, 2 and 4 ranks.
#include "fsllm/fed/aggregate.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

constexpr int kClients = 9;
constexpr double kUnit = 0x1p-24;  ///< of rounding in fp32

/// Signs and magnitudes over six decades, so that sums cancel.
TensorMap update_of(int client) {
  Philox random(3, Purpose::test, static_cast<uint64_t>(client));
  TensorMap update{{"a", at::empty({40, 50})}, {"b", at::empty({777})}};
  for (auto& [name, tensor] : update) {
    auto* const values = tensor.mutable_data_ptr<float>();
    for (int64_t i = 0; i < tensor.numel(); ++i)
      values[i] = static_cast<float>(random.normal() * std::pow(10.0, 6 * random.uniform() - 5));
  }
  return update;
}

/// Shares of a round whose other clients did not arrive: they do not add up to one.
double weight_of(int client) {
  return (1.0 + client * client) / 300.0;
}

/// Σ weight·|update| and the mean, both in float64, and Σ weight.
struct Expected {
  TensorMap mean, magnitude;
  double weight = 0;
};

void add(TensorMap& sum, std::string const& name, at::Tensor const& value) {
  if (auto const [at, fresh] = sum.emplace(name, value); !fresh) at->second = at->second + value;
}

Expected expected() {
  Expected e;
  for (int client = 0; client < kClients; ++client) {
    e.weight += weight_of(client);
    for (auto const& [name, tensor] : update_of(client)) {
      auto const term = tensor.to(at::kDouble) * weight_of(client);
      add(e.mean, name, term);
      add(e.magnitude, name, term.abs());
    }
  }
  for (auto& [name, tensor] : e.mean) tensor.div_(e.weight);
  return e;
}

/// Client k is added by rank k modulo the number of ranks.
TensorMap mean_over_ranks(Aggregation& aggregation, Communicator const& comm) {
  auto const collective = make_host_collective(comm);
  for (int client = comm.rank(); client < kClients; client += comm.size())
    aggregation.add({update_of(client), {}}, {client, 0, weight_of(client)});
  return aggregation.reduce(*collective).mean;
}

/// The largest |actual - expected| in units of `bound`, element by element.
double worst(at::Tensor const& actual, at::Tensor const& expected, at::Tensor const& bound) {
  return ((actual.to(at::kDouble) - expected).abs() / bound).max().item<double>();
}

TEST(NativeAggregation, IsTheMeanUpToRoundingInFp32) {
  auto const world = Communicator::world();
  auto const mean = mean_over_ranks(*make_native_aggregation({update_of(0), {}}), world);
  if (world.rank() != 0) return;
  auto const e = expected();
  // Of each term: its weight and the product are rounded, then at most one sum a client and rank that comes
  // after it; the total weight is rounded, and the quotient (Higham 2002, section 3.1: the error is at most
  // n·u / (1 - n·u) of the sum of magnitudes).
  double const n = 2 + (kClients - 1) + (world.size() - 1) + 2;
  double const share = n * kUnit / (1 - n * kUnit);
  for (auto const& [name, tensor] : mean) {
    EXPECT_EQ(tensor.scalar_type(), at::kFloat);
    double const off = worst(tensor, e.mean.at(name), e.magnitude.at(name) * (share / e.weight));
    RecordProperty(name, std::to_string(off));
    EXPECT_LE(off, 1) << name;
    EXPECT_GE(off, 0.02) << name << ": the bound would not notice a wrong term";
  }
}

/// Large tensors are added a part at a time: the bits are those of the whole, and every part is looked at.
TEST(NativeAggregation, AddsLargeTensorsInParts) {
  constexpr int64_t kCount = 3 * (1 << 16) + 5;
  TensorMap const layout{{"large", at::zeros({kCount})}};
  auto const aggregation = make_native_aggregation({layout, {}, {}});
  auto whole = at::zeros({kCount});
  for (int client = 0; client < 3; ++client) {
    auto const update = at::randn({kCount});
    aggregation->add({{{"large", update}}, {}, {}}, {client + 1, 0, weight_of(client)});
    whole.add_(update, weight_of(client));
  }
  whole.div_(weight_of(0) + weight_of(1) + weight_of(2));
  auto const mean = aggregation->reduce(*make_host_collective(Communicator::self())).mean;
  EXPECT_TRUE(at::equal(mean.at("large"), whole));
  for (int64_t const place : {int64_t{0}, int64_t{1} << 16, kCount - 1})
    for (double const bad : {INFINITY, -INFINITY, NAN}) {
      auto const update = at::zeros({kCount});
      update[place] = bad;
      EXPECT_ERROR(aggregation->add({{{"large", update}}, {}, {}}, {1, 0, 0.5}),
                   "large of client 1 is not finite");
    }
}

TEST(ExactAggregation, IsTheMeanRoundedOnce) {
  auto const world = Communicator::world();
  constexpr int kBits = 48;
  auto const mean = mean_over_ranks(*make_exact_aggregation({update_of(0), {}}, kBits), world);
  if (world.rank() != 0) return;
  auto const e = expected();
  double const half_units = kClients * std::ldexp(0.5, -kBits);  // of all terms, and of all weights
  for (auto const& [name, tensor] : mean) {
    auto const before_fp32 =
        (half_units + e.mean.at(name).abs() * half_units + e.magnitude.at(name) * 0x1p-50) / e.weight;
    EXPECT_LE(worst(tensor, e.mean.at(name), before_fp32 + e.mean.at(name).abs() * kUnit), 1) << name;
  }
}

TEST(ExactAggregation, HasTheSameBitsHoweverClientsAreSpread) {
  auto const world = Communicator::world();
  auto const alone = mean_over_ranks(*make_exact_aggregation({update_of(0), {}}, 48), Communicator::self());
  for (int const parts : {1, 2}) {
    auto const comm = world.split(world.rank() % parts, world.rank());
    auto const mean = mean_over_ranks(*make_exact_aggregation({update_of(0), {}}, 48), comm);
    for (auto const& [name, tensor] : mean) EXPECT_TRUE(at::equal(tensor, alone.at(name))) << name;
    EXPECT_EQ(mean.empty(), comm.rank() != 0);
  }
}

/// Exact sums, and messages that meet: whoever ends first.
TEST(Aggregation, OrderOfClientsDoesNotMatter) {
  auto const collective = make_host_collective(Communicator::self());
  FedAlgorithm first_and_last;
  first_and_last.combine = [](GatheredMessages const& all, Communicator const&) {
    return Message{subtract(all.messages.front(), all.messages.back()), {}, {}};
  };
  auto const combined = [&](bool gather, std::vector<int> const& order) {
    auto const aggregation = gather ? make_gathering(update_of(0), first_and_last)
                                    : make_exact_aggregation({update_of(0), {}}, 48);
    for (int const client : order) aggregation->add({update_of(client), {}}, {client, 0, weight_of(client)});
    return aggregation->reduce(*collective).mean;
  };
  std::vector<int> order(kClients);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 random(1);
  for (bool const gather : {false, true}) {
    auto const expected = combined(gather, order);
    for (int i = 0; i < 5; ++i) {
      auto other = order;
      std::shuffle(other.begin(), other.end(), random);
      for (auto const& [name, tensor] : combined(gather, other))
        EXPECT_TRUE(at::equal(tensor, expected.at(name))) << name << gather;
    }
  }
}

TEST(Aggregation, WithoutAClientIsAnError) {
  auto const collective = make_host_collective(Communicator::self());
  EXPECT_ERROR(make_exact_aggregation({update_of(0), {}}, 48)->reduce(*collective), "no weight arrived");
  EXPECT_ERROR(make_native_aggregation({update_of(0), {}})->reduce(*collective), "no weight arrived");
}

}  // namespace
}  // namespace fsllm
