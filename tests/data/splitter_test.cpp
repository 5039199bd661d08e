// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/splitter.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using Rows = std::vector<int64_t>;

/// n samples in `categories` unequal categories c0, c1, ... and with owners 0 ... owners-1.
std::vector<Sample> make_samples(int64_t n, int64_t categories, int64_t owners = 1) {
  std::vector<Sample> samples(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    samples[static_cast<size_t>(i)].category = "c" + std::to_string(i * i % 7 * i % categories);
    samples[static_cast<size_t>(i)].owner = std::to_string(i % owners);
  }
  return samples;
}

std::set<std::string> categories_in(std::vector<Sample> const& samples, std::vector<int64_t> const& rows) {
  std::set<std::string> names;
  for (int64_t const row : rows) names.insert(samples[static_cast<size_t>(row)].category);
  return names;
}

DataConfig config_for(std::string const& splitter, double alpha = 0.5) {
  DataConfig config;
  config.types = {"data.json"};
  config.splitter = splitter;
  config.alpha = alpha;
  config.natural_field = "owner";
  return config;
}

Rows joined(SplitPlan::Parts const& parts) {
  Rows all = parts.train;
  all.insert(all.end(), parts.val.begin(), parts.val.end());
  all.insert(all.end(), parts.test.begin(), parts.test.end());
  return all;
}

Rows sorted(Rows rows) {
  std::sort(rows.begin(), rows.end());
  return rows;
}

/// Every row once, in the server's parts as in the clients', and in the same part there.
void expect_partition(SplitPlan const& plan, int64_t n) {
  Rows every(static_cast<size_t>(n));
  std::iota(every.begin(), every.end(), 0);
  EXPECT_EQ(sorted(joined(plan.server)), every);
  SplitPlan::Parts of_clients;
  for (auto const& client : plan.clients) {
    of_clients.train.insert(of_clients.train.end(), client.train.begin(), client.train.end());
    of_clients.val.insert(of_clients.val.end(), client.val.begin(), client.val.end());
    of_clients.test.insert(of_clients.test.end(), client.test.begin(), client.test.end());
  }
  EXPECT_EQ(sorted(of_clients.train), sorted(plan.server.train));
  EXPECT_EQ(sorted(of_clients.val), sorted(plan.server.val));
  EXPECT_EQ(sorted(of_clients.test), sorted(plan.server.test));
}

std::map<std::string, double> shares(std::vector<Sample> const& samples, Rows const& rows) {
  std::map<std::string, double> share;
  for (int64_t const row : rows)
    share[samples[static_cast<size_t>(row)].category] += 1.0 / static_cast<double>(rows.size());
  return share;
}

/// Total variation distance between two distributions of categories.
double distance(std::map<std::string, double> a, std::map<std::string, double> b) {
  double sum = 0;
  for (auto const& [name, share] : a) b[name];
  for (auto const& [name, share] : b) sum += std::abs(share - a[name]) / 2;
  return sum;
}

TEST(Splitter, EveryRowIsInOnePartOfOneClient) {
  for (auto const& [splitter, build, text] : splitters()) {
    for (int64_t const n : {40, 333, 1000}) {
      for (auto const& splits : {std::vector{0.8, 0.1, 0.1}, std::vector{1.0, 0.0, 0.0},
                                 std::vector{0.9, 0.1, 0.0}, std::vector{0.5, 0.0, 0.5}}) {
        SCOPED_TRACE(testing::Message() << splitter << " " << n << " " << splits[0]);
        auto config = config_for(splitter);
        config.splits = splits;
        auto const samples = make_samples(n, 5, 3);
        auto const plan = plan_split(row_table(samples), config, 3, 11);
        ASSERT_EQ(plan.clients.size(), 3U);
        expect_partition(plan, n);
        EXPECT_EQ(plan.server.train.size(), static_cast<size_t>(splits[0] * static_cast<double>(n)));
        if (splits[1] == 0) {
          EXPECT_TRUE(plan.server.val.empty());
        }
        if (splits[2] == 0) {
          EXPECT_TRUE(plan.server.test.empty());
        }
        for (auto const& client : plan.clients) EXPECT_FALSE(client.train.empty());
      }
    }
  }
}

TEST(Splitter, DependsOnTheSeedAlone) {
  auto const samples = make_samples(200, 5, 4);
  for (auto const& [splitter, build, text] : splitters()) {
    auto const a = plan_split(row_table(samples), config_for(splitter), 4, 1),
               b = plan_split(row_table(samples), config_for(splitter), 4, 1),
               c = plan_split(row_table(samples), config_for(splitter), 4, 2);
    for (size_t k = 0; k < 4; ++k) EXPECT_EQ(joined(a.clients[k]), joined(b.clients[k])) << splitter;
    EXPECT_NE(a.server.train, c.server.train) << splitter;
  }
}

TEST(Splitter, IidSharesDifferByARowAtMost) {
  auto const samples = make_samples(1003, 5);
  auto const plan = plan_split(row_table(samples), config_for("iid"), 7, 3);
  auto const whole = shares(samples, plan.server.train);
  for (auto const& client : plan.clients) {
    EXPECT_NEAR(static_cast<double>(client.train.size()), 802.0 / 7, 1);
    EXPECT_LT(distance(shares(samples, client.train), whole), 0.25);
  }
}

TEST(Splitter, LdaIsSkewedByAlphaAndAlikeInEveryPart) {
  auto const samples = make_samples(20000, 8);
  auto const mean_skew = [&](double alpha) {
    auto const plan = plan_split(row_table(samples), config_for("lda", alpha), 10, 5);
    auto const whole = shares(samples, plan.server.train);
    double skew = 0;
    for (auto const& client : plan.clients) skew += distance(shares(samples, client.train), whole) / 10;
    for (auto const& client : plan.clients) {
      if (client.val.size() < 100) continue;
      EXPECT_LT(distance(shares(samples, client.train), shares(samples, client.val)), 0.1)
          << "alpha " << alpha;
      EXPECT_LT(distance(shares(samples, client.train), shares(samples, client.test)), 0.1)
          << "alpha " << alpha;
    }
    return skew;
  };
  double const mild = mean_skew(100), usual = mean_skew(0.5), strong = mean_skew(0.05);
  EXPECT_LT(mild, 0.1);
  EXPECT_GT(usual, mild + 0.1);
  EXPECT_GT(strong, usual + 0.1);
}

TEST(Splitter, LdaGivesEveryClientItsMinimum) {
  auto const samples = make_samples(400, 2);
  auto config = config_for("lda", 0.3);
  config.lda_min_size = 20;
  for (uint64_t seed = 0; seed < 20; ++seed)
    for (auto const& client : plan_split(row_table(samples), config, 5, seed).clients)
      EXPECT_GE(client.train.size(), 20U);
  config.lda_min_size = 65;  // 5 * 65 > 320 training rows
  EXPECT_ERROR(plan_split(row_table(samples), config, 5, 1),
               "federate.client_num = 5 (splitter lda with alpha 0.3 found no division");
}

TEST(Splitter, LdaSurvivesAnAlphaThatUnderflows) {
  auto const samples = make_samples(400, 5);
  auto config = config_for("lda", 1e-6);
  config.lda_min_size = 0;
  expect_partition(plan_split(row_table(samples), config, 3, 1), 400);
}

TEST(Splitter, MetaClientsHoldWholeCategories) {
  auto const samples = make_samples(500, 6);
  auto const plan = plan_split(row_table(samples), config_for("meta"), 4, 9);
  std::map<std::string, std::set<size_t>> holders;
  for (size_t k = 0; k < 4; ++k)
    for (int64_t const row : joined(plan.clients[k]))
      holders[samples[static_cast<size_t>(row)].category].insert(k);
  std::map<size_t, int> held;
  for (auto const& [category, clients] : holders) {
    EXPECT_EQ(clients.size(), 1U) << category
                                  << " is held by several clients, or differs between train and test";
    ++held[*clients.begin()];
  }
  for (auto const& [client, count] : held) EXPECT_GE(count, 1);
  EXPECT_EQ(held.size(), 4U);
  EXPECT_ERROR(
      plan_split(row_table(samples), config_for("meta"), 7, 9),
      "federate.client_num = 7 (splitter meta gives each client whole categories, and data.json has 6)");
}

TEST(Splitter, NaturalClientsAreTheValuesOfAField) {
  std::vector<Sample> samples(60);
  std::vector<std::string> const owners{"10", "9", "anna", "2", "Bob"};
  for (size_t i = 0; i < samples.size(); ++i) samples[i].owner = owners[i % owners.size()];
  auto const plan = plan_split(row_table(samples), config_for("natural"), 0, 4);
  ASSERT_EQ(plan.clients.size(), 5U);
  std::vector<std::string> const order{"2", "9", "10", "Bob", "anna"};
  for (size_t k = 0; k < 5; ++k)
    for (int64_t const row : joined(plan.clients[k]))
      EXPECT_EQ(samples[static_cast<size_t>(row)].owner, order[k]);
  EXPECT_ERROR(plan_split(row_table(samples), config_for("natural"), 3, 4),
               "federate.client_num = 3 (splitter natural makes every value of 'owner' a client, and "
               "data.json has 5)");
}

TEST(Splitter, EveryNaturalClientTrainsIfItCan) {
  std::vector<Sample> samples(103);
  for (size_t i = 0; i < samples.size(); ++i) samples[i].owner = i < 50 ? "big" : "small" + std::to_string(i);
  auto config = config_for("natural");
  config.splits = {0.6, 0.2, 0.2};
  for (uint64_t seed = 0; seed < 10; ++seed) {
    auto const plan = plan_split(row_table(samples), config, 0, seed);
    expect_partition(plan, 103);
    EXPECT_EQ(plan.server.train.size(), 61U);
    for (auto const& client : plan.clients) EXPECT_FALSE(client.train.empty());
  }
}

TEST(Splitter, PathologicalClientsHoldFewCategoriesTheSameInEveryPart) {
  auto const samples = make_samples(4000, 10);
  auto config = config_for("pathological");
  for (int64_t const classes : {1, 2}) {
    config.classes = classes;
    auto const plan = plan_split(row_table(samples), config, 10, 3);
    expect_partition(plan, 4000);
    for (auto const& client : plan.clients) {
      auto const trained = categories_in(samples, client.train);
      EXPECT_LE(trained.size(),
                static_cast<size_t>(3 * classes));  // a piece may lie over a border, or hold a rare one
      EXPECT_NEAR(static_cast<double>(client.train.size()), 320, 2 * static_cast<double>(classes));
      for (auto const* rows : {&client.val, &client.test})
        for (auto const& name : categories_in(samples, *rows)) EXPECT_TRUE(trained.contains(name)) << name;
    }
  }
  config.classes = 400;
  EXPECT_ERROR(plan_split(row_table(samples), config, 10, 3),
               "data.splitter_args[0].classes = 400 (splitter pathological cuts the 3200 training rows into "
               "4000 pieces");
}

TEST(Splitter, InnerDirichletSkewsMixesButNotSizes) {
  auto const samples = make_samples(20000, 8);
  auto const mean_skew = [&](double alpha) {
    auto const plan = plan_split(row_table(samples), config_for("inner_dirichlet", alpha), 10, 5);
    expect_partition(plan, 20000);
    auto const whole = shares(samples, plan.server.train);
    double skew = 0;
    for (auto const& client : plan.clients) {
      EXPECT_EQ(client.train.size(), 1600U);
      skew += distance(shares(samples, client.train), whole) / 10;
      EXPECT_LT(distance(shares(samples, client.train), shares(samples, client.val)), 0.1);
    }
    return skew;
  };
  double const mild = mean_skew(100), usual = mean_skew(0.5), strong = mean_skew(0.05);
  EXPECT_LT(mild, 0.15);
  EXPECT_GT(usual, mild + 0.1);
  EXPECT_GT(strong, usual + 0.05);
}

TEST(Splitter, QuantitySkewsSizesButNotMixes) {
  auto const samples = make_samples(20000, 4);
  auto config = config_for("quantity");
  auto const sizes_of = [&](std::string const& distribution, double spread) {
    config.distribution = distribution;
    config.spread = spread;
    auto const plan = plan_split(row_table(samples), config, 10, 7);
    expect_partition(plan, 20000);
    auto const whole = shares(samples, plan.server.train);
    std::vector<double> sizes;
    for (auto const& client : plan.clients) {
      sizes.push_back(static_cast<double>(client.train.size()));
      if (client.train.size() > 500) {
        EXPECT_LT(distance(shares(samples, client.train), whole), 0.1);
      }
    }
    return sizes;
  };
  auto const linear = sizes_of("linear", 1), power = sizes_of("power", 2), even = sizes_of("power", 0);
  for (size_t k = 0; k < 10; ++k) {
    EXPECT_NEAR(linear[k], 16000.0 * static_cast<double>(k + 1) / 55, 2);
    EXPECT_NEAR(power[k] / power[0], 1 / std::pow(static_cast<double>(k + 1), 2), 0.01);
    EXPECT_NEAR(even[k], 1600, 1);
  }
  auto const ratio = [](std::vector<double> const& sizes) {
    return std::ranges::max(sizes) / std::ranges::min(sizes);
  };
  EXPECT_LT(ratio(sizes_of("lognormal", 0.1)), 2);
  EXPECT_GT(ratio(sizes_of("lognormal", 2)), 10);
}

TEST(Splitter, TextLengthOrdersClients) {
  auto samples = make_samples(1000, 2);
  for (size_t i = 0; i < samples.size(); ++i) samples[i].output = std::string(i * 37 % 1000, 'x');
  auto const plan = plan_split(row_table(samples), config_for("text_length"), 4, 2);
  size_t longest = 0;
  for (auto const& client : plan.clients) {
    size_t shortest = 1000, until = 0;
    for (int64_t const row : joined(client)) {
      shortest = std::min(shortest, samples[static_cast<size_t>(row)].output.size());
      until = std::max(until, samples[static_cast<size_t>(row)].output.size());
    }
    EXPECT_GE(shortest, longest);
    longest = until;
  }
}

TEST(Splitter, TablesOfSeveralRanksAreOne) {
  auto const samples = make_samples(500, 5, 3);
  auto const whole = row_table(samples);
  std::vector<RowTable> parts(3);
  for (int64_t i = 0; i < 500; ++i)
    parts[static_cast<size_t>(i / 16 % 3)].add(samples[static_cast<size_t>(i)], i);
  for (auto& part : parts) part = row_table_from_bytes(to_bytes(part));
  auto const merged = merge(parts);
  ASSERT_EQ(merged.rows(), 500);
  EXPECT_EQ(to_bytes(merged), to_bytes(whole));
}

TEST(Splitter, ImpossibleClientNumbersAreExplained) {
  auto const samples = make_samples(10, 3);
  EXPECT_ERROR(plan_split(row_table(samples), config_for("iid"), 9, 1),
               "federate.client_num = 9 (only 8 training rows in data.json). Lower it to at most 8");
  EXPECT_ERROR(plan_split(row_table(samples), config_for("lda"), 0, 1),
               "federate.client_num = 0 (splitter lda must know");
  EXPECT_ERROR(plan_split(row_table(samples), config_for("idd"), 2, 1), "Did you mean 'iid'?");
  EXPECT_ERROR(plan_split(row_table(make_samples(1, 1)), config_for("iid"), 2, 1),
               "no training rows (data.splits takes 0.8 of 1 rows of data.json for training, rounded down)");
  auto untrained = config_for("iid");
  untrained.splits = {0, 0.5, 0.5};
  EXPECT_TRUE(plan_split(row_table(samples), untrained, 2, 1).server.train.empty());
}

TEST(Splitter, SubsampleKeepsAShare) {
  auto config = config_for("iid");
  config.subsample = 0.25;
  auto const samples = make_samples(200, 3);
  auto const plan = plan_split(row_table(samples), config, 2, 1);
  auto const rows = sorted(joined(plan.server));
  EXPECT_EQ(rows.size(), 50U);
  EXPECT_EQ(std::set<int64_t>(rows.begin(), rows.end()).size(), 50U);
  EXPECT_NE(rows, sorted(joined(plan_split(row_table(samples), config, 2, 2).server)));
}

TEST(Splitter, CompatIsNumpysPermutation) {
  // numpy.random.seed(12345); numpy.random.permutation(20)
  Rows const expected{13, 8, 16, 3, 15, 12, 0, 10, 7, 11, 6, 17, 19, 18, 14, 9, 4, 1, 5, 2};
  auto config = config_for("iid");
  config.compat = true;
  config.splits = {0.5, 0.25, 0.25};
  auto const plan = plan_split(row_table(make_samples(20, 3)), config, 2, 99);
  EXPECT_EQ(joined(plan.server), expected);
  auto const large = joined(plan_split(row_table(make_samples(100000, 3)), config, 2, 7).server);
  int64_t checksum = 0;
  for (int64_t i = 0; i < 100000; ++i) checksum += large[static_cast<size_t>(i)] * i % 1000003;
  EXPECT_EQ(checksum, 50103095110) << "(permutation(100000) * arange(100000) % 1000003).sum()";
}

}  // namespace
}  // namespace fsllm
