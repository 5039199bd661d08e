// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/jsonl_writer.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "fsllm/core/error.hpp"
#include "fsllm/core/progress.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

std::vector<std::string> lines_of(std::filesystem::path const& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

TEST(JsonlWriter, OneObjectALineInTheGivenOrder) {
  test::TempDir dir;
  {
    JsonlWriter writer(dir / "metrics.jsonl");
    writer.write({{"event", "round"}, {"round", 1}, {"a", 0.1}});
    EXPECT_EQ(lines_of(dir / "metrics.jsonl").size(), 1u) << "a line must be on disk at once";
    writer.write({{"event", "round"}, {"round", 2}, {"text", "line\nbreak \u00fc"}});
  }
  auto const lines = lines_of(dir / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], R"({"event":"round","round":1,"a":0.1})");
  EXPECT_EQ(nlohmann::json::parse(lines[1]).at("text"), "line\nbreak \u00fc");
}

TEST(JsonlWriter, AppendsToWhatIsThere) {
  test::TempDir dir;
  JsonlWriter(dir / "m.jsonl").write({{"round", 1}});
  JsonlWriter(dir / "m.jsonl").write({{"round", 2}});
  EXPECT_EQ(lines_of(dir / "m.jsonl"), (std::vector<std::string>{R"({"round":1})", R"({"round":2})"}));
}

TEST(JsonlWriter, AMissingFolderIsAnErrorWithItsReason) {
  test::TempDir dir;
  EXPECT_ERROR(JsonlWriter(dir / "none/m.jsonl"), "m.jsonl cannot be written (No such file or directory)");
}

TEST(JsonlWriter, AFullDiskIsAnError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  JsonlWriter writer("/dev/full");
  EXPECT_ERROR(writer.write({{"round", 1}}), "No space left on device");
}

/// Standard output of the test is a file while captured: the plain form.
std::string plain_output(bool enabled, double interval_s) {
  testing::internal::CaptureStdout();
  {
    Progress progress("round 3", 10, "steps", enabled, interval_s);
    progress.advance(4, "loss 2.5");
    progress.advance(6);
  }
  return testing::internal::GetCapturedStdout();
}

TEST(Progress, PlainModePrintsTheEndOnce) {
  auto const text = plain_output(true, 3600);
  EXPECT_THAT(text, testing::StartsWith("round 3 10/10 steps, "));
  EXPECT_THAT(text, testing::HasSubstr("steps/s"));
  EXPECT_THAT(text, testing::EndsWith(", loss 2.5\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(text.find('\033'), std::string::npos);
}

TEST(Progress, PlainModeKeepsToItsInterval) {
  auto const text = plain_output(true, 0);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_THAT(text, testing::HasSubstr("round 3 4/10 steps"));
  EXPECT_THAT(text, testing::HasSubstr(" left, loss 2.5"));
}

TEST(Progress, SilentWhenDisabled) {
  EXPECT_EQ(plain_output(false, 0), "");
}

TEST(Progress, SilentWhenNothingWasDone) {
  testing::internal::CaptureStdout();
  { Progress progress("round 3", 10, "steps", true, 0); }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

}  // namespace
}  // namespace fsllm
