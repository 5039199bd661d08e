// SPDX-License-Identifier: Apache-2.0
// Reports of runs at scale and of damaged ones; tests/e2e/run_reports_test.cpp has those of real runs.
#include "fsllm/report/report.hpp"

#include <fmt/core.h>
#include <sys/stat.h>

#include <cmath>
#include <fstream>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using testing::HasSubstr;
using testing::Not;

size_t count_of(std::string const& text, std::string const& what) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++count;
  return count;
}

/// Rounds whose losses are 4/(1 + round) and whose clients all train.
void write_run(std::filesystem::path const& dir, int64_t rounds, int64_t clients, int64_t ranks) {
  std::ofstream(dir / "config.yaml") << "federate: {total_round_num: " << rounds << "}\nseed: 3\n";
  std::ofstream(dir / "run.json") << R"({"computed_on": [{"after_round": 0, "processor": "x</td>y"}]})";
  std::ofstream metrics(dir / "metrics.jsonl"), of_clients(dir / "metrics_clients.jsonl"),
      of_ranks(dir / "metrics_ranks.jsonl");
  for (int64_t r = 0; r <= rounds; ++r) {
    auto const losses =
        fmt::format("\"loss_per_token\":{},\"clients\":{}", 4.0 / static_cast<double>(1 + r), clients);
    metrics << fmt::format(R"({{"event":"{}","round":{},"val":{{{}}},)", r == 0 ? "start" : "round", r,
                           losses);
    if (r > 0) metrics << fmt::format(R"("train":{{{},"tokens":10}},)", losses);
    metrics
        << "\"bytes_up\":2048,\"bytes_down\":1024,\"seconds\":{\"train\":0.5},\"peak_rss_bytes\":1048576}\n";
    if (r > 0)
      for (int64_t c = 1; c <= clients; ++c)
        of_clients << fmt::format(R"({{"round":{},"client":{},"train":{{"loss_per_token":1.5}}}})", r, c)
                   << "\n";
    for (int64_t k = 0; k < ranks; ++k)
      of_ranks << fmt::format(R"({{"round":{},"rank":{},"turns":1,"seconds":{{"train":0.25}}}})", r, k)
               << "\n";
  }
}

TEST(RunReport, AThousandRoundsAndClients) {
  test::TempDir dir;
  write_run(dir.path(), 1500, 1200, 100);
  auto const run = read_run_data(dir.path());
  EXPECT_EQ(run.done(), 1500);
  EXPECT_EQ(run.turns.size(), 1500U * 1200U);
  EXPECT_EQ(run.ranks.at(99).turns, 1501);
  auto const page = report_html(run);
  EXPECT_LT(page.size(), 3U << 20);
  auto const curve = page.find("data-curve=\"val\" points=\"");
  ASSERT_NE(curve, std::string::npos);
  auto const points = page.substr(curve + 25, page.find('"', curve + 25) - curve - 25);
  EXPECT_EQ(count_of(points, ","), 1500U);
  EXPECT_THAT(page, HasSubstr("<details><summary>1501 rows</summary>"));
  EXPECT_THAT(page, HasSubstr("<tr><td>1500</td><td>0.002665</td>"));
  auto const text = report_text(run);
  EXPECT_LT(count_of(text, "\n"), 250U);
  EXPECT_THAT(text, HasSubstr("... 1461 rows between"));
}

TEST(RunReport, OneRoundAndNothing) {
  test::TempDir dir;
  write_run(dir.path(), 1, 1, 1);
  EXPECT_THAT(report_html(read_run_data(dir.path())), HasSubstr("data-curve=\"val\""));
  std::ofstream(dir / "metrics.jsonl").close();
  auto const nothing = read_run_data(dir.path());
  EXPECT_EQ(nothing.done(), 0);
  EXPECT_THAT(report_html(nothing), Not(HasSubstr("<polyline")));
  EXPECT_THAT(report_text(nothing), HasSubstr("0 of 1 rounds, not finished"));
}

/// What is no number, numbers without end, nesting, and texts that are no UTF-8.
TEST(RunReport, HostileFiles) {
  test::TempDir dir;
  write_run(dir.path(), 2, 1, 1);
  std::ofstream(dir / "metrics.jsonl", std::ios::app)
      << "null\n{}\n{\"round\":-1}\n{\"round\":1e300}\n"
      << std::string(100000, '[') << "\n"
      << R"({"event":"round","round":3,"train":7,"val":{"loss_per_token":null,"quantiles":{"loss_per_token":[1]}},)"
      << R"("seconds":[],"bytes_up":1e300,"tokens_per_second":"x","best":5})"
      << "\n{\"event\":\"tasks\",\"round\":3,\"tasks\":{\"<i>\":{\"acc\":0.5,\"x\":\"y\"},\"z\":3}}\n";
  std::ofstream(dir / "config.yaml", std::ios::app) << "outdir: \"a\\u202eb<script>\"\n";
  std::ofstream(dir / "summary.json") << "{";
  std::filesystem::remove(dir / "metrics_clients.jsonl");
  ASSERT_EQ(::mkfifo((dir / "metrics_clients.jsonl").c_str(), 0600), 0);
  auto const run = read_run_data(dir.path());
  EXPECT_EQ(run.done(), 3);
  EXPECT_THAT(run.problems, testing::Contains(HasSubstr("metrics.jsonl: 5 damaged lines")));
  EXPECT_THAT(run.problems, testing::Contains(HasSubstr("summary.json")));
  EXPECT_THAT(run.problems, testing::Contains("metrics_clients.jsonl is no regular file"));
  auto const page = report_html(run);
  EXPECT_THAT(page, HasSubstr("&lt;i&gt; acc"));
  for (auto const* bad : {"<i>", "<script>", "\xE2\x80\xAE", "x</td>y"})
    EXPECT_THAT(page, Not(HasSubstr(bad)));
  EXPECT_THAT(report_text(run), HasSubstr("0.5000"));
}

TEST(RunReport, TheSmallestHeldOutLossIsTheBest) {
  test::TempDir dir;
  write_run(dir.path(), 4, 1, 1);
  auto const run = read_run_data(dir.path());
  ASSERT_TRUE(best_loss(run).has_value());
  EXPECT_EQ(best_loss(run)->first, 4);
  EXPECT_DOUBLE_EQ(best_loss(run)->second, 0.8);
  EXPECT_EQ(held_out_splits(run), std::vector<std::string>{"val"});
  EXPECT_DOUBLE_EQ(seconds_in(run, "train"), 2.5);
}

}  // namespace
}  // namespace fsllm
