// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/run_directory.hpp"

#include <fstream>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

TEST(RunDirectory, RefusesToMixTwoRuns) {
  test::TempDir dir;
  RunDirectory const run{dir / "exp"};
  run.prepare(false);
  std::ofstream(run.config()) << "seed: 1\n";
  std::ofstream(dir / "exp/notes.txt") << "mine";
  EXPECT_ERROR(run.prepare(false), "--resume, replace it with --overwrite, or choose another expname");
  run.prepare(true);
  EXPECT_FALSE(run.holds_run());
  EXPECT_TRUE(std::filesystem::exists(dir / "exp/notes.txt"));
}

TEST(RunDirectory, RewindsItsLogs) {
  test::TempDir dir;
  RunDirectory const run{dir.path()};
  std::ofstream(run.metrics())
      << "{\"event\":\"start\",\"round\":0}\n{\"event\":\"round\",\"round\":1}\n"
         "{\"event\":\"round\",\"round\":2}\n{\"event\":\"end\",\"round\":2}\n{\"event\":\"rou";
  std::ofstream(run.eval_results())
      << "{'Role': 'Server #', 'Round': 1, 'x': {}}\n{'Role': 'Server #', 'Round': 2, 'x': {}}\n{'Role'";
  run.rewind_logs(1);
  EXPECT_EQ(read_file(run.metrics()),
            "{\"event\":\"start\",\"round\":0}\n{\"event\":\"round\",\"round\":1}\n");
  EXPECT_EQ(read_file(run.eval_results()), "{'Role': 'Server #', 'Round': 1, 'x': {}}\n");
}

}  // namespace
}  // namespace fsllm
