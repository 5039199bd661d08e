// SPDX-License-Identifier: Apache-2.0
// A run on GPUs learns what the same run on the CPU learns.
#include <ATen/Context.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include <optional>

#include "bad_input.hpp"
#include "fsllm/model/dropout.hpp"

namespace fsllm::test {
namespace {

/// Mean training loss of each round.
std::vector<double> losses(std::filesystem::path const& run_directory) {
  std::vector<double> values;
  for (auto const& event : read_events(run_directory / "metrics.jsonl"))
    if (event.at("event") == "round") values.push_back(event.at("train").at("loss_per_token").get<double>());
  return values;
}

/// use_gpu: True is an error where there is none, in one message.
bool refused_without_gpu(Outcome const& outcome) {
  if (outcome.exit_code != 2 || outcome.err.find("use_gpu: True (") == std::string::npos) return false;
  expect_message(outcome, "set use_gpu: auto or False to use the CPU.");
  return true;
}

class Gpu : public testing::TestWithParam<char const*> {};
INSTANTIATE_TEST_SUITE_P(Training, Gpu, testing::Values("auto", "nf4", "int8", "padded", "dropout"),
                         [](auto const& test) { return std::string(test.param); });

TEST_P(Gpu, LearnsWhatTheCpuLearns) {
  TempDir dir;
  SmallRun small;
  bool const padded = GetParam() == std::string("padded");
  bool const drops = GetParam() == std::string("dropout");
  if (padded) small.packing = "none";
  if (drops) small.adapter = "{r: 4, lora_alpha: 8, lora_dropout: 0.1}";
  std::string const key = "train.storage_dtype", storage = padded || drops ? "auto" : GetParam();
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  auto const cpu =
      run(dir.path(), 1, {"fsllm_hpc", "--cfg", config, "use_gpu", "False", "expname", "cpu", key, storage});
  ASSERT_EQ(cpu.exit_code, 0) << cpu.err << cpu.out;
  auto const expected = losses(dir.path() / "cpu");
  for (int const ranks : {1, 2}) {
    auto const name = "gpu" + std::to_string(ranks);
    auto const gpu = run(dir.path(), ranks,
                         {"fsllm_hpc", "--cfg", config, "use_gpu", "True", "expname", name, key, storage});
    if (refused_without_gpu(gpu))
      GTEST_SKIP() << "no GPU here (or a build without FSLLM_CUDA): the run said so";
    ASSERT_EQ(gpu.exit_code, 0) << gpu.err << gpu.out;
    auto const actual = losses(dir.path() / name);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t round = 0; round < actual.size(); ++round)
      EXPECT_NEAR(actual[round], expected[round], 1e-4 * expected[round]) << "round " << round + 1;
  }
}

/// Bytes of live tensors on the GPU at the end of the last round; nothing without a GPU.
std::optional<int64_t> device_bytes(std::filesystem::path const& run_directory) {
  std::optional<int64_t> bytes;
  for (auto const& event : read_events(run_directory / "metrics.jsonl"))
    if (event.contains("device_bytes")) bytes = event.at("device_bytes").get<int64_t>();
  return bytes;
}

/// llm.adapter.mv_to_cpu: the adapters of the three clients are not on the GPU between their turns.
TEST(GpuMemory, RestingClientsFreeTheirs) {
  TempDir dir;
  SmallRun small;
  small.adapter = "{r: 256, lora_alpha: 8, target_modules: all-linear}";
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  std::vector<int64_t> bytes;
  for (auto const* moved : {"False", "True"}) {
    auto const outcome = run(dir.path(), 1,
                             {"fsllm_hpc", "--cfg", config, "use_gpu", "True", "federate.method", "local",
                              "llm.adapter.mv_to_cpu", moved, "expname", moved});
    if (refused_without_gpu(outcome)) GTEST_SKIP() << "no GPU here (or a build without FSLLM_CUDA)";
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    auto const found = device_bytes(dir.path() / moved);
    if (!found) GTEST_SKIP() << "no GPU here (or a build without FSLLM_CUDA)";
    bytes.push_back(*found);
  }
  auto const one = dir.path() / "True/adapter/client_00001/adapter_model.safetensors";
  auto const adapter = static_cast<int64_t>(std::filesystem::file_size(one)) * 9 / 10;  // without names
  EXPECT_LE(bytes[1], bytes[0] - 4 * adapter) << "three adapters and the gradients of one";
}

/// Masks are drawn where they are needed, and are the same everywhere.
TEST(GpuDropout, MasksAreThoseOfTheCpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU here (or a LibTorch without CUDA)";
  for (int64_t const width : {5, 64, 4099}) {
    DropoutLines const host{at::full({1100, 1}, int64_t{-81985529216486896}, at::kLong),
                            at::arange(1100, at::kLong).unsqueeze(1), at::arange(7, 10, at::kLong),
                            at::arange(3, at::kLong)};
    DropoutLines const device{host.seed.to(at::kCUDA), host.row.to(at::kCUDA), host.place.to(at::kCUDA),
                              host.head.to(at::kCUDA)};
    auto const expected = keep_mask(host, width, 0.1, "a site"),
               drawn = keep_mask(device, width, 0.1, "a site");
    EXPECT_TRUE(drawn.is_cuda());
    EXPECT_TRUE(at::equal(drawn.cpu(), expected)) << width;
  }
}

}  // namespace
}  // namespace fsllm::test
