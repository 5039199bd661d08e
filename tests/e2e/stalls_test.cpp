// SPDX-License-Identifier: Apache-2.0
// A rank that stands still (stopped, as a node that swaps or a file system that hangs) is named by another.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "damage.hpp"

namespace fsllm::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr std::chrono::seconds kPatience{30};

class Stalls : public testing::Test {
 protected:
  Stalls() { prepare(dir_.path()); }

  /// Stops a rank in the midst of the run until `file` of the test's folder says what it lets others wait
  /// for.
  void stop(size_t rank, std::string const& file) {
    auto text = yaml(dir_.path());
    text.replace(text.find("total_round_num: 1"), 18, "total_round_num: 100000");
    auto const config = write_config(dir_.path(), text).string();
    Background job(dir_.path(), 3, {"fsllm_hpc", "--cfg", config, "hpc.stall_warning_s", "0.5"});
    auto const events = [&] {
      auto const lines = read_text(dir_ / "run/metrics.jsonl");
      return std::count(lines.begin(), lines.end(), '\n');
    };
    ASSERT_TRUE(comes([&] { return events() > 3; }, kPatience));
    auto const told = [&] { return read_text(dir_ / file); };
    EXPECT_THAT(told(), testing::Not(HasSubstr("others wait")));
    job.signal_rank(rank, SIGSTOP);
    auto const who = fmt::format("rank {} on ", rank);
    bool const named = comes(
        [&] {
          auto const said = told();
          auto const at = said.find(who);
          return at != std::string::npos && said.find("others wait", at) != std::string::npos;
        },
        kPatience);
    job.signal_rank(rank, SIGCONT);
    EXPECT_TRUE(named) << told();
    EXPECT_THAT(told(), testing::ContainsRegex(who + "[^ ]+ has let the others wait for [0-9]+ s: "
                                                     "(training|evaluating|reading|moving|writing) "));
    auto const before = events();
    EXPECT_TRUE(comes([&] { return events() > before + 1; }, kPatience)) << "the run does not go on";
  }
  TempDir dir_;
};

TEST_F(Stalls, RankZeroNamesAnother) {
  stop(2, "run/exp_print.log");
}

TEST_F(Stalls, RankOneNamesRankZero) {
  stop(0, "stdout.txt");
}

TEST_F(Stalls, BadKey) {
  auto const config = write_config(dir_.path(), yaml(dir_.path())).string();
  auto const outcome = run(dir_.path(), 2, {"fsllm_hpc", "--cfg", config, "hpc.stall_warning_s", "-1"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("hpc.stall_warning_s"));
}

}  // namespace
}  // namespace fsllm::test
