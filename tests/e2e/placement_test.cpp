// SPDX-License-Identifier: Apache-2.0
// Cores of ranks, as the log's table shows them.
#include <sched.h>

#include <regex>

#include "federation.hpp"

namespace fsllm::test {
namespace {

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  return CPU_COUNT(&set);
}

class Placement : public testing::Test {
 protected:
  /// What a run says.
  std::string log_of(int np, std::vector<std::string> const& more) {
    SmallRun small;
    small.rounds = 1;
    std::vector<std::string> words{
        "fsllm_hpc", "--cfg", write_config(dir_.path(), small.yaml(dir_.path())).string(), "--overwrite"};
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = run(dir_.path(), np, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out + outcome.err;
  }
  TempDir dir_;
};

/// Tests start ranks without binding them.
TEST_F(Placement, RanksOfANodeHaveCoresOfTheirOwn) {
  if (usable_cores() < 2) GTEST_SKIP() << "one core";
  auto const log = log_of(2, {});
  std::regex const row(R"(\n +(\d+) +\S+ +\d+  ([0-9,-]+)\n)");
  std::smatch first, second;
  ASSERT_TRUE(std::regex_search(log, first, row)) << log;
  auto const rest = "\n" + first.suffix().str();
  ASSERT_TRUE(std::regex_search(rest, second, row)) << log;
  EXPECT_EQ(second[1], "1") << log;
  EXPECT_NE(first[2], second[2]) << log;
}

TEST_F(Placement, MoreThreadsThanCoresAreWarnedOf) {
  auto const more = std::to_string(usable_cores() + 1);
  EXPECT_NE(log_of(0, {"hpc.threads", more}).find(more + " threads on "), std::string::npos);
  EXPECT_EQ(log_of(0, {"hpc.threads", "1"}).find(" threads on "), std::string::npos);
}

}  // namespace
}  // namespace fsllm::test
