// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/log.hpp"

#include <fstream>
#include <sstream>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

template <class Function>
std::string output_of(Function function) {
  testing::internal::CaptureStdout();
  function();
  return testing::internal::GetCapturedStdout();
}

/// The log is process-wide: every test leaves it as main finds it.
class Log : public testing::Test {
 protected:
  void TearDown() override { start_log(0, 1, LogLevel::info); }
};

TEST_F(Log, AloneWithoutRankPrefix) {
  start_log(0, 1, LogLevel::info);
  auto const text = output_of([] {
    log_debug("hidden");
    log_info("loaded {} tensors", 12);
  });
  EXPECT_THAT(text, testing::HasSubstr("loaded 12 tensors\n"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("rank")));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("hidden")));
}

TEST_F(Log, OtherRanksWarnOnlyAndSayWhoTheyAre) {
  start_log(2, 4, LogLevel::debug);
  auto const text = output_of([] {
    log_info("hidden");
    log_warning("slow disk");
  });
  EXPECT_THAT(text, testing::HasSubstr("[rank 2] slow disk\n"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("hidden")));
}

TEST_F(Log, LevelOfRankZero) {
  start_log(0, 4, LogLevel::error);
  EXPECT_EQ(output_of([] { log_warning("quiet"); }), "");
  start_log(0, 4, LogLevel::debug);
  EXPECT_THAT(output_of([] { log_debug("loud"); }), testing::HasSubstr("debug loud\n"));
}

TEST_F(Log, AFolderThatDoesNotExistOrCannotBeMadeIsAnError) {
  EXPECT_ERROR(log_to_file("/dev/null/exp_print.log"), "/dev/null/exp_print.log cannot be written");
}

/// Last of this suite: the file stays attached to the process-wide log.
TEST_F(Log, ZFileHoldsWhatWasPrinted) {
  test::TempDir dir;
  auto const path = dir / "exp_print.log";
  std::ofstream(path) << "earlier run\n";
  start_log(0, 2, LogLevel::info);
  log_to_file(path);
  output_of([] { log_info("round {} done", 3); });
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_THAT(text.str(), testing::StartsWith("earlier run\n"));
  EXPECT_THAT(text.str(), testing::HasSubstr("info round 3 done\n"));
}

}  // namespace
}  // namespace fsllm
