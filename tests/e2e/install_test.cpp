// SPDX-License-Identifier: Apache-2.0
// The programs after cmake --install, moved to another folder and run from a third.
#include <fstream>

#include "federation.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

/// The output of a shell command; fails the test unless it ends with 0.
std::string shell(fs::path const& dir, std::string const& command) {
  auto const log = (dir / "shell.txt").string();
  EXPECT_EQ(std::system(("cd " + dir.string() + " && { " + command + "; } >" + log + " 2>&1").c_str()), 0)
      << command << "\n"
      << read_text(log);
  return read_text(log);
}

TEST(Install, ProgramsRunFromAMovedPrefix) {
  TempDir dir;
  auto const build = fs::path(std::getenv("FSLLM_BIN_DIR")).parent_path().string();
  shell(dir.path(), "cmake --install " + build + " --prefix $PWD/first && mv first second");
  auto const bin = dir / "second/bin";
  for (auto const* program : {"fsllm_hpc", "fsllm_shard", "fsllm_eval", "fsllm_export", "fsllm_inspect",
                              "fsllm_serve", "fsllm_chat", "fsllm_requeue", "fsllm_sweep", "fsllm_wandb.py"})
    EXPECT_TRUE(fs::exists(bin / program)) << program;
  auto const version = shell(dir.path(), (bin / "fsllm_hpc").string() + " --version");
  for (auto const* fact : {"fsllm_hpc ", "LibTorch: 2.", "HDF5: 1.", "Parquet: ", "CUDA: ", "MPI"})
    EXPECT_THAT(version, testing::HasSubstr(fact));
  EXPECT_THAT(shell(dir.path(), (bin / "fsllm_hpc").string() +
                                    " --cfg second/share/fsllm/configs/quickstart.yaml model.type " +
                                    reference_dir("llama").string() + " --print-config"),
              testing::HasSubstr("total_round_num: 8"));

  auto const config = write_config(dir.path(), SmallRun{}.yaml(dir.path())).string();
  shell(dir.path(), (bin / "fsllm_hpc").string() + " --cfg " + config + " expname moved");
  auto const here = run(dir.path(), 1, {"fsllm_hpc", "--cfg", config, "expname", "here"});
  ASSERT_EQ(here.exit_code, 0) << here.err << here.out;
  auto const adapter = [&](char const* name) {
    return read_text(dir.path() / name / "adapter/adapter_model.safetensors");
  };
  EXPECT_EQ(adapter("moved"), adapter("here"));
}

}  // namespace
}  // namespace fsllm::test
