// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/plan.hpp"

#include <set>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

FedConfig config_of(std::string const& yaml) {
  auto config = Config::parse(yaml, "test.yaml");
  return load_fed_config(config);
}

std::vector<int64_t> const kTen{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

TEST(Sampling, TakesAllByDefault) {
  EXPECT_EQ(sample_clients(config_of(""), kTen, 0), kTen);
}

TEST(Sampling, IsUniformWithoutReplacement) {
  auto const config = config_of("federate: {sample_client_num: 3}");
  std::map<int64_t, int> times;
  int const rounds = 4000;
  for (int round = 0; round < rounds; ++round) {
    auto const chosen = sample_clients(config, kTen, round);
    ASSERT_EQ(std::set<int64_t>(chosen.begin(), chosen.end()).size(), 3U);
    for (int64_t const client : chosen) ++times[client];
  }
  // Each client is drawn in 3 of 10 rounds: binomial with standard deviation 29.
  for (int64_t const client : kTen) EXPECT_NEAR(times[client], 1200, 5 * 29) << client;
}

TEST(Sampling, RateGoesBeforeNumber) {
  EXPECT_EQ(
      sample_clients(config_of("federate: {sample_client_num: 3, sample_client_rate: 0.55}"), kTen, 0).size(),
      5U);
  EXPECT_EQ(sample_clients(config_of("federate: {sample_client_rate: 0.01}"), kTen, 0).size(), 1U);
}

TEST(Sampling, MoreThanThereAreIsAnError) {
  EXPECT_ERROR(sample_clients(config_of("federate: {sample_client_num: 40}"), kTen, 0),
               "federate.sample_client_num = 40 (only 10 clients");
}

TEST(Placement, PutsEachClientOnceAndBalances) {
  std::vector<double> const costs{10, 1, 1, 1, 1, 1, 1, 1, 1, 2};
  auto const placed = place_clients(kTen, costs, 2, 0);
  std::multiset<int64_t> all;
  for (auto const& clients : placed) all.insert(clients.begin(), clients.end());
  EXPECT_EQ(all, std::multiset<int64_t>(kTen.begin(), kTen.end()));
  EXPECT_EQ(placed[0], std::vector<int64_t>{1});
}

TEST(Placement, LeavesAServingRankOut) {
  auto const placed = place_clients(kTen, std::vector<double>(10, 1.0), 3, 1);
  EXPECT_TRUE(placed[0].empty());
  EXPECT_EQ(placed[1].size(), 5U);
}

TEST(FedConfig, RejectsImpossibleValues) {
  EXPECT_ERROR(config_of("federate:\n  method: fedavgg"),
               "test.yaml:2: federate.method = 'fedavgg' (not a known method). Did you mean 'fedavg'?");
  EXPECT_ERROR(config_of("federate: {total_round_num: 0}"), "at least 1");
  EXPECT_ERROR(config_of("federate: {sample_client_rate: 1.5}"), "must be in [-1, 1]");
  EXPECT_ERROR(config_of("hpc: {reduce: fast}"), "must be one of auto, exact, native");
  EXPECT_ERROR(config_of("eval: {split: [val, train]}"), "must be one of val, test");
}

TEST(PlaceClients, StayOnTheRanksThatMayOpenTheirShards) {
  std::vector<std::vector<int>> const allowed{{1}, {1}, {1}, {0, 1}, {}};
  auto const placed = place_clients({1, 2, 3, 4, 5}, {5, 4, 3, 2, 1}, 3, 0, allowed);
  EXPECT_EQ(placed[0], (std::vector<int64_t>{4}));
  EXPECT_EQ(placed[1], (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(placed[2], (std::vector<int64_t>{5}));
  EXPECT_ERROR(place_clients({7}, {1}, 2, 1, {{0}}),
               "client 7 lies on rank 0 alone (hpc.server_trains: False");
}

}  // namespace
}  // namespace fsllm
