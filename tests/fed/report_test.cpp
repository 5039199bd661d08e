// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/report.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace fsllm {
namespace {

/// Client k has trained on k targets with a loss of 2 k each, and has a validation loss of k.
RoundReport report_of(int64_t clients) {
  RoundReport report;
  report.round = 3;
  for (int64_t k = 1; k <= clients; ++k) {
    auto const number = static_cast<double>(k);
    TrainResult result;
    result.loss_sum = 2 * number * number;
    result.targets = k;
    report.clients.push_back({k, result, 10 * number});
    report.losses["val"][k] = {number * 5, 5, 1};
  }
  return report;
}

TEST(Report, HoldsSumsAndQuantilesOfClients) {
  auto const event = to_json(report_of(4));
  auto const& train = event.at("train");
  EXPECT_EQ(train.at("clients"), 4);
  EXPECT_DOUBLE_EQ(train.at("loss_per_token").get<double>(), 2.0 * (1 + 4 + 9 + 16) / 10);
  auto const& loss = train.at("quantiles").at("loss_per_token");
  EXPECT_DOUBLE_EQ(loss.at("min").get<double>(), 2);
  EXPECT_DOUBLE_EQ(loss.at("p10").get<double>(), 2.6);  // numpy.quantile([2, 4, 6, 8], 0.1)
  EXPECT_DOUBLE_EQ(loss.at("p50").get<double>(), 5);
  EXPECT_DOUBLE_EQ(loss.at("p90").get<double>(), 7.4);
  EXPECT_DOUBLE_EQ(loss.at("max").get<double>(), 8);
  EXPECT_DOUBLE_EQ(train.at("quantiles").at("update_norm").at("max").get<double>(), 40);
  EXPECT_EQ(event.at("val").at("clients"), 4);
  EXPECT_DOUBLE_EQ(event.at("val").at("quantiles").at("loss_per_token").at("p50").get<double>(), 2.5);
}

TEST(Report, TellsHowFairlyClientsFare) {
  auto const fairness = to_json(report_of(20)).at("val").at("fairness");
  EXPECT_DOUBLE_EQ(fairness.at("mean").get<double>(), 10.5);
  EXPECT_DOUBLE_EQ(fairness.at("worst_10_percent").get<double>(), 19.5);
  EXPECT_NEAR(fairness.at("variance").get<double>(), 33.25, 1e-12);  // numpy.var(range(1, 21))
  auto const few = to_json(report_of(3)).at("val").at("fairness");
  EXPECT_DOUBLE_EQ(few.at("worst_10_percent").get<double>(), 3);
  EXPECT_DOUBLE_EQ(to_json(report_of(1)).at("val").at("fairness").at("variance").get<double>(), 0);
}

TEST(Report, IsAsLongForManyClients) {
  auto const few = to_json(report_of(9)), many = to_json(report_of(9000));
  EXPECT_LT(many.dump().size(), few.dump().size() + 100);
  EXPECT_EQ(client_lines(report_of(9000)).size(), 9000U);
}

TEST(Report, OneClientIsEveryQuantile) {
  auto const event = to_json(report_of(1));
  for (auto const& [name, value] : event.at("train").at("quantiles").at("update_norm").items())
    EXPECT_EQ(value, 10) << name;
}

TEST(Report, WhatIsNotANumberComesLast) {
  auto report = report_of(5);
  for (int64_t const client : {1, 3}) report.losses["val"][client].sum = std::nan("");
  auto const loss = to_json(report).at("val").at("quantiles").at("loss_per_token");
  EXPECT_EQ(loss.at("min"), 2);
  EXPECT_EQ(loss.at("p50"), 5);
  EXPECT_TRUE(std::isnan(loss.at("max").get<double>()));
}

TEST(Report, EachClientHasALine) {
  auto report = report_of(2);
  report.losses["val_unseen"][7] = {1, 1, 1};
  auto const lines = client_lines(report);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[1].at("client"), 2);
  EXPECT_EQ(lines[1].at("round"), 3);
  EXPECT_EQ(lines[1].at("train").at("targets"), 2);
  EXPECT_DOUBLE_EQ(lines[1].at("val").at("loss_per_token").get<double>(), 2);
  EXPECT_EQ(lines[2].at("client"), 7);
  EXPECT_FALSE(lines[2].contains("train"));
}

/// A client with two turns has two lines, the first with its losses.
TEST(Report, AsynchronousRoundsTellVirtualTimeAndStaleness) {
  auto report = report_of(2);
  EXPECT_FALSE(to_json(report).contains("asyn"));
  report.arrivals = Arrivals{7.5, 0.5, 2, 3};
  auto again = report.clients[1];
  report.clients[1].version = 0;
  again.version = 2;
  again.update_norm = 1;
  report.clients.push_back(again);
  auto const event = to_json(report).at("asyn");
  EXPECT_EQ(event.at("virtual_seconds"), 7.5);
  EXPECT_EQ(event.at("staleness").at("mean"), 0.5);
  EXPECT_EQ(event.at("staleness").at("max"), 2);
  EXPECT_EQ(event.at("dropped"), 3);
  auto const lines = client_lines(report);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[1].at("train").at("staleness"), 2);
  EXPECT_TRUE(lines[1].contains("val"));
  EXPECT_EQ(lines[2].at("client"), 2);
  EXPECT_EQ(lines[2].at("train").at("staleness"), 0);
  EXPECT_EQ(lines[2].at("train").at("update_norm"), 1);
  EXPECT_FALSE(lines[2].contains("val"));
}

TEST(Report, EvalResultsNameUpToAHundredClients) {
  auto const lines_of = [](int64_t clients) {
    auto const text = eval_result_lines(report_of(clients));
    return std::count(text.begin(), text.end(), '\n');
  };
  EXPECT_EQ(lines_of(100), 101);
  EXPECT_EQ(lines_of(101), 1);
}

}  // namespace
}  // namespace fsllm
