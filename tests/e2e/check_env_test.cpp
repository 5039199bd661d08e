// SPDX-License-Identifier: Apache-2.0
// fsllm_hpc --check-env: on a sound machine, and where ranks do not have the same files.
#include <gmock/gmock.h>

#include "federation.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

TEST(CheckEnv, TellsWhatRanksRunOn) {
  TempDir dir;
  auto const config = write_config(dir.path(), SmallRun{}.yaml(dir.path())).string();
  auto const outcome = run(dir.path(), 2, {"fsllm_hpc", "--check-env", "--cfg", config});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out,
              AllOf(HasSubstr("2 ranks on 1 nodes"), HasSubstr("local rank"), HasSubstr("GiB of memory free"),
                    HasSubstr("messages: "), HasSubstr("shared by all nodes"),
                    HasSubstr("the same on all nodes"), HasSubstr("\nready\n")));
  for (auto const& entry : fs::directory_iterator(dir.path()))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".fsllm-check")) << "left behind";
  auto const alone = run(dir.path(), 0, {"fsllm_hpc", "--check-env"});
  EXPECT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_THAT(alone.out, HasSubstr("1 ranks on 1 nodes"));
}

/// Each rank has a working directory of its own, as nodes have without a shared file system.
TEST(CheckEnv, NamesRanksThatHaveOtherFiles) {
  TempDir dir;
  std::vector<fs::path> const folders{dir / "a", dir / "b", dir / "c"};
  for (auto const& folder : folders) {
    fs::create_directories(folder);
    fs::copy(reference_dir("llama"), folder / "model", fs::copy_options::recursive);
  }
  fs::remove_all(folders[1] / "model");
  fs::resize_file(folders[2] / "model/config.json", 10);
  SmallRun small;
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  auto const outcome =
      run_apart(dir.path(), folders,
                {"fsllm_hpc", "--check-env", "--cfg", config, "outdir", "results", "model.type", "model"});
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("is not shared: ranks 1, 2 ("),
                                 HasSubstr("is not there for rank 1 ("), HasSubstr("problems\n")));
}

}  // namespace
}  // namespace fsllm::test
