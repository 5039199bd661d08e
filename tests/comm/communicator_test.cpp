// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/communicator.hpp"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

/// Different on each rank, with a zero byte, and empty on rank 1.
std::string bytes_of(int rank) {
  return rank == 1 ? "" : std::string(static_cast<size_t>(rank) * 70000 + 3, static_cast<char>(rank));
}

TEST(Communicator, BytesTravelFromEveryRoot) {
  auto const world = Communicator::world();
  for (int root = 0; root < world.size(); ++root) {
    std::string bytes = bytes_of(world.rank());
    world.broadcast(bytes, root);
    EXPECT_EQ(bytes, bytes_of(root));
    auto const all = world.gather(bytes_of(world.rank()), root);
    ASSERT_EQ(all.size(), world.rank() == root ? static_cast<size_t>(world.size()) : 0u);
    for (size_t rank = 0; rank < all.size(); ++rank) EXPECT_EQ(all[rank], bytes_of(static_cast<int>(rank)));
  }
  auto const all = world.all_gather(bytes_of(world.rank()));
  ASSERT_EQ(all.size(), static_cast<size_t>(world.size()));
  for (size_t rank = 0; rank < all.size(); ++rank) EXPECT_EQ(all[rank], bytes_of(static_cast<int>(rank)));
}

TEST(Communicator, ScalarReductions) {
  auto const world = Communicator::world();
  int64_t const n = world.size(), big = int64_t{1} << 40;
  EXPECT_EQ(world.sum(world.rank() + big), n * (n - 1) / 2 + n * big);
  EXPECT_EQ(world.max(-world.rank() - 5), -5);
  EXPECT_TRUE(world.any(world.rank() == world.size() - 1));
  EXPECT_FALSE(world.any(false));
  for (uint64_t value : {uint64_t{0}, uint64_t{7}, ~uint64_t{0}}) EXPECT_TRUE(world.all_equal(value));
  if (world.size() > 1) {
    EXPECT_FALSE(world.all_equal(world.rank() == 0 ? 1 : 2));
    EXPECT_FALSE(world.all_equal(world.rank() == 0 ? ~uint64_t{0} : 0));
  }
}

TEST(Communicator, SplitOrdersByKey) {
  auto const world = Communicator::world();
  auto const part = world.split(world.rank() % 2, -world.rank());
  int const members = (world.size() + 1 - world.rank() % 2) / 2;
  EXPECT_EQ(part.size(), members);
  EXPECT_EQ(part.rank(), members - 1 - world.rank() / 2);
  auto const copy = part;
  EXPECT_EQ(copy.sum(1), members);
  EXPECT_EQ(Communicator::self().size(), 1);
  EXPECT_EQ(Communicator::self().sum(9), 9);
  EXPECT_EQ(world.split_by_node().size(), world.size());
}

TEST(Communicator, ErrorsOfMpiCarryItsText) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(MPI_ERR_ROOT, text, &length);
  auto const message = "MPI_Bcast failed (" + std::string(text);
  std::string bytes = "x";
  EXPECT_ERROR(Communicator::self().broadcast(bytes, 99), message);
  auto const part = Communicator::world().split(0, 0);
  EXPECT_ERROR(part.broadcast(bytes, -5), message);
}

TEST(Session, VersionAndPlacement) {
  auto const world = Communicator::world();
  EXPECT_THAT(mpi_library_version(),
              testing::AnyOf(testing::StartsWith("Open MPI v"), testing::StartsWith("MPICH")));
  EXPECT_EQ(mpi_library_version().find_first_of(std::string("\n\0", 2)), std::string::npos);
  auto const table = placement_table(world);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), world.size());
  EXPECT_THAT(table, testing::ContainsRegex("\n +0  [^ ]+ +0  [0-9]"));
}

/// Sets the variables that launchers set, and restores what was there.
class LauncherVariables {
 public:
  explicit LauncherVariables(std::map<std::string, std::string> const& values) {
    for (char const* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "SLURM_STEP_ID",
                             "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}) {
      if (char const* const text = std::getenv(name)) old_[name] = text;
      unsetenv(name);
    }
    for (auto const& [name, value] : values) setenv(name.c_str(), value.c_str(), 1);
  }
  ~LauncherVariables() {
    for (char const* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "SLURM_STEP_ID",
                             "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"})
      unsetenv(name);
    for (auto const& [name, value] : old_) setenv(name.c_str(), value.c_str(), 1);
  }

 private:
  std::map<std::string, std::string> old_;
};

void check_launch_with(std::map<std::string, std::string> const& values) {
  LauncherVariables const variables(values);
  check_launch();
}

TEST(Session, LonelyRankOfALargerLaunchIsRefused) {
  std::vector<std::pair<std::map<std::string, std::string>, std::string>> const refused{
      {{{"OMPI_COMM_WORLD_SIZE", "4"}}, "alone although 4 were started (OMPI_COMM_WORLD_SIZE says so"},
      {{{"PMI_SIZE", "2"}}, "alone although 2 were started (PMI_SIZE says so"},
      {{{"PMIX_RANK", "3"}}, "alone although 4 were started (PMIX_RANK says so"},
      {{{"SLURM_STEP_ID", "0"}, {"SLURM_NTASKS", "8"}},
       "alone although 8 were started (SLURM_NTASKS says so"},
      {{{"SLURM_STEP_ID", "2"}, {"SLURM_STEP_NUM_TASKS", "3"}, {"SLURM_NTASKS", "8"}},
       "3 were started (SLURM_STEP_NUM_TASKS"},
  };
  for (auto const& [variables, message] : refused) {
    if (Communicator::world().size() > 1)
      EXPECT_NO_THROW(check_launch_with(variables));
    else
      EXPECT_ERROR(check_launch_with(variables), message);
  }
  EXPECT_NO_THROW(check_launch_with({}));
  EXPECT_NO_THROW(
      check_launch_with({{"OMPI_COMM_WORLD_SIZE", "1"}, {"SLURM_STEP_ID", "0"}, {"SLURM_NTASKS", "4"}}));
  EXPECT_NO_THROW(check_launch_with({{"SLURM_NTASKS", "4"}}));
  EXPECT_NO_THROW(check_launch_with({{"SLURM_STEP_ID", "4294967291"}, {"SLURM_NTASKS", "4"}}));
  EXPECT_NO_THROW(check_launch());
}

}  // namespace
}  // namespace fsllm
