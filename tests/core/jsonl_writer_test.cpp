// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/jsonl_writer.hpp"

#include <fcntl.h>
#include <pty.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
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

TEST(Progress, WithoutATerminalThereIsNone) {
  testing::internal::CaptureStdout();
  {
    Progress progress("round 3", 10, "steps", true);
    progress.advance(4, "loss 2.5");
    progress.advance(6);
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

/// What a terminal of this width gets of a work of 10 steps, line by line.
std::vector<std::string> drawn_lines(unsigned short columns, bool enabled = true) {
  int master = -1, slave = -1;
  winsize const size{24, columns, 0, 0};
  EXPECT_EQ(openpty(&master, &slave, nullptr, nullptr, &size), 0);
  std::fflush(stdout);
  int const before = dup(STDOUT_FILENO);
  dup2(slave, STDOUT_FILENO);
  {
    Progress progress("round 3/20", 10, "steps", enabled, 170, [](int64_t) { return 1; });
    for (int step = 0; step < 3; ++step) {
      std::this_thread::sleep_for(std::chrono::milliseconds(120));
      progress.advance(2, "client 12, loss 2.5312");
    }
  }
  std::fflush(stdout);
  dup2(before, STDOUT_FILENO);
  close(before);
  close(slave);
  fcntl(master, F_SETFL, O_NONBLOCK);
  std::string text, piece(4096, '\0');
  for (ssize_t count = 0; (count = ::read(master, piece.data(), piece.size())) > 0;)
    text.append(piece, 0, static_cast<size_t>(count));
  close(master);
  std::vector<std::string> lines;
  std::string const begin = "\r\033[K";
  for (size_t at = text.find(begin); at != std::string::npos;) {
    auto const next = text.find(begin, at + begin.size());
    lines.push_back(
        text.substr(at + begin.size(), next == std::string::npos ? next : next - at - begin.size()));
    at = next;
  }
  return lines;
}

TEST(Progress, OthersAreToldAndCounted) {
  std::vector<int64_t> told;
  {
    Progress progress("round 1/1", 9, "steps", false, 0, [&](int64_t done) {
      told.push_back(done);
      return 0;
    });
    for (int step = 0; step < 2; ++step) {
      std::this_thread::sleep_for(std::chrono::milliseconds(120));
      progress.advance(3);
    }
  }
  EXPECT_EQ(told, (std::vector<int64_t>{3, 6}));
}

TEST(Progress, ALineHoldsWhatTheTerminalIsWideFor) {
  if (std::getenv("OMPI_COMM_WORLD_RANK") != nullptr)
    GTEST_SKIP() << "under mpirun the launcher's output counts";
  for (unsigned short const columns : {20, 40, 80, 200}) {
    auto const lines = drawn_lines(columns);
    ASSERT_GE(lines.size(), 3U) << columns;
    EXPECT_EQ(lines.back(), "") << "it goes when the work is done";
    for (auto const& line : lines) EXPECT_LT(line.size(), columns) << line;
    EXPECT_THAT(lines.front(), testing::StartsWith("round 3/20 3/10 s"));
    EXPECT_EQ(lines.front().find("run ") != std::string::npos, columns >= 80) << lines.front();
    EXPECT_EQ(lines.front().find("steps/s") != std::string::npos, columns >= 200) << lines.front();
  }
  EXPECT_TRUE(drawn_lines(80, false).empty());
}

}  // namespace
}  // namespace fsllm
