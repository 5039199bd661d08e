// SPDX-License-Identifier: Apache-2.0
// A run on GPUs learns what the same run on the CPU learns.
#include "federation.hpp"

namespace fsllm::test {
namespace {

/// Mean training loss of each round.
std::vector<double> losses(std::filesystem::path const& run_directory) {
  std::vector<double> values;
  for (auto const& event : read_events(run_directory / "metrics.jsonl"))
    if (event.at("event") == "round") values.push_back(event.at("train").at("loss_per_token").get<double>());
  return values;
}

TEST(Gpu, LearnsWhatTheCpuLearns) {
  TempDir dir;
  SmallRun const small;
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  auto const cpu = run(dir.path(), 1, {"fsllm_hpc", "--cfg", config, "expname", "cpu"});
  ASSERT_EQ(cpu.exit_code, 0) << cpu.err << cpu.out;
  auto const expected = losses(dir.path() / "cpu");
  for (int const ranks : {1, 2}) {
    auto const name = "gpu" + std::to_string(ranks);
    auto const gpu =
        run(dir.path(), ranks, {"fsllm_hpc", "--cfg", config, "use_gpu", "True", "expname", name});
    ASSERT_EQ(gpu.exit_code, 0) << gpu.err << gpu.out;
    auto const actual = losses(dir.path() / name);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t round = 0; round < actual.size(); ++round)
      EXPECT_NEAR(actual[round], expected[round], 1e-4 * expected[round]) << "round " << round + 1;
    if ((gpu.out + gpu.err).find("the run uses the CPU") != std::string::npos) {
      EXPECT_EQ(actual, expected);
      GTEST_SKIP() << "no GPU here (or a build without FSLLM_CUDA): the run said so and used the CPU";
    }
  }
}

}  // namespace
}  // namespace fsllm::test
