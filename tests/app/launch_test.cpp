// SPDX-License-Identifier: Apache-2.0
// Launches that are pretended: what is said of them.
#include "launch.hpp"

#include <gmock/gmock.h>

namespace fsllm {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Variables = std::map<std::string, std::string>;

/// `ranks_on_node` ranks on each of `nodes` nodes with 8 processors, bound to one each.
std::vector<RankFacts> sound_launch(int nodes, int ranks_on_node, Variables const& variables) {
  std::vector<RankFacts> ranks;
  for (int node = 0; node < nodes; ++node)
    for (int local = 0; local < ranks_on_node; ++local) {
      RankFacts facts;
      facts.host = "n" + std::to_string(node + 1);
      facts.node = node * ranks_on_node;
      facts.cores = std::to_string(local);
      facts.machine_threads = 8;
      facts.processor = "a processor";
      facts.mpi = "Open MPI v4.1.4";
      facts.environment = variables;
      ranks.push_back(facts);
    }
  return ranks;
}

Variables with(Variables variables, Variables const& more) {
  for (auto const& [name, value] : more) variables[name] = value;
  return variables;
}

Variables const kSrun{{"SLURM_NTASKS", "4"},
                      {"SLURM_STEP_ID", "0"},
                      {"SLURM_STEP_NUM_NODES", "2"},
                      {"SLURM_JOB_ID", "7"},
                      {"SLURM_JOB_NUM_NODES", "2"}};
Variables const kMpirun{{"SLURM_NTASKS", "4"},
                        {"SLURM_JOB_ID", "7"},
                        {"SLURM_JOB_NUM_NODES", "2"},
                        {"OMPI_COMM_WORLD_SIZE", "4"}};

void expect_warning(std::vector<RankFacts> const& ranks, std::string const& said, std::string const& advice) {
  auto const faults = judge_launch(ranks);
  EXPECT_THAT(faults.errors, IsEmpty());
  EXPECT_THAT(faults.warnings, ElementsAre(AllOf(HasSubstr(said), HasSubstr(advice))));
}

TEST(Launch, NothingIsSaidOfSoundOnes) {
  for (auto const& variables : {kSrun, kMpirun, Variables{}}) {
    auto const faults = judge_launch(sound_launch(2, 2, variables));
    EXPECT_THAT(faults.errors, IsEmpty());
    EXPECT_THAT(faults.warnings, IsEmpty());
  }
  // A container with one processor for two ranks, and a laptop with more ranks than cores.
  auto ranks = sound_launch(1, 4, {{"OMPI_MCA_mpi_yield_when_idle", "1"}});
  for (auto& facts : ranks) {
    facts.machine_threads = 2;
    facts.threads = 2;
    facts.cores = "0-1";
  }
  EXPECT_THAT(judge_launch(ranks).warnings, IsEmpty());
}

TEST(Launch, DifferentBuildsAreRefused) {
  auto ranks = sound_launch(2, 2, kSrun);
  ranks[2].program = ranks[3].program = 1;
  EXPECT_THAT(judge_launch(ranks).errors,
              ElementsAre(AllOf(HasSubstr("different builds"), HasSubstr("ranks 2, 3 (n2)"))));
}

TEST(Launch, DifferentProcessorsAreToldOf) {
  auto ranks = sound_launch(2, 1, {});
  ranks[1].processor = "another";
  expect_warning(ranks, "n1 has a processor, rank 1 (n2) another", "--constraint");
}

TEST(Launch, GpusByTaskUnderMpirunAreRefused) {
  auto ranks = sound_launch(2, 2, with(kMpirun, {{"SLURM_GPUS_PER_TASK", "1"}}));
  for (auto& facts : ranks) facts.gpus = facts.node == 0 ? 2 : 1;
  EXPECT_THAT(judge_launch(ranks).errors,
              ElementsAre(AllOf(HasSubstr("between 1 and 2 GPUs"), HasSubstr("--gpus-per-node"))));
  // Nodes of different kinds are no fault, nor is the flag with srun.
  for (auto& facts : ranks) facts.environment = kMpirun;
  EXPECT_THAT(judge_launch(ranks).errors, IsEmpty());
  for (auto& facts : ranks) facts.environment = with(kSrun, {{"SLURM_GPUS_PER_TASK", "1"}});
  EXPECT_THAT(judge_launch(ranks).errors, IsEmpty());
}

TEST(Launch, IdleGpusAreToldOf) {
  auto const variables = with(kSrun, {{"SLURM_GPUS_ON_NODE", "4"}});
  expect_warning(sound_launch(2, 2, variables), "4 GPUs a node are idle", "preset cuda");
  auto ranks = sound_launch(2, 2, variables);
  for (auto& facts : ranks) facts.cuda = true;
  EXPECT_THAT(judge_launch(ranks).warnings, IsEmpty());
}

TEST(Launch, IdleTasksAndNodesAreToldOf) {
  expect_warning(sound_launch(1, 1, {{"SLURM_NTASKS", "4"}, {"SLURM_JOB_NUM_NODES", "2"}}),
                 "3 of 4 tasks are idle", "srun --mpi=pmix");
  expect_warning(sound_launch(2, 1, kMpirun), "2 of 4 tasks are idle", "mpirun on all of them");
  auto ranks = sound_launch(1, 2, {});
  ranks[0].slots = 6;
  expect_warning(ranks, "4 of 6 tasks are idle (PBS_NODEFILE", "mpirun");
  auto const packed = with(kMpirun, {{"OMPI_COMM_WORLD_SIZE", "4"}});
  expect_warning(sound_launch(1, 4, packed), "1 of 2 nodes of this job are idle", "--map-by node");
}

TEST(Launch, ProcessorsThatSrunLeavesOutAreToldOf) {
  auto ranks = sound_launch(2, 2, with(kSrun, {{"SLURM_CPUS_PER_TASK", "4"}}));
  expect_warning(ranks, "3 of 4 processors a task are idle", "srun --cpus-per-task=$SLURM_CPUS_PER_TASK");
  for (auto& facts : ranks) facts.threads = 4;
  EXPECT_THAT(judge_launch(ranks).warnings, IsEmpty());
}

TEST(Launch, RanksOnOneProcessorAreToldOf) {
  auto ranks = sound_launch(2, 2, kSrun);
  for (auto& facts : ranks) facts.cores = "3";
  expect_warning(ranks, "ranks 0, 1 (n1) share processor 3 (the node has 8)", "--bind-to core");
}

TEST(Launch, RanksThatWaitAtEachOthersCostAreToldOf) {
  auto ranks = sound_launch(1, 4, {});
  for (auto& facts : ranks) facts.machine_threads = 2;
  expect_warning(ranks, "4 ranks on the 2 processors of n1", "OMPI_MCA_mpi_yield_when_idle=1");
  for (auto& facts : ranks) facts.environment["OMPI_MCA_mpi_oversubscribe"] = "1";
  EXPECT_THAT(judge_launch(ranks).warnings, IsEmpty());
}

TEST(Launch, ForbiddenCopiesAreToldOf) {
  auto ranks = sound_launch(1, 2, {});
  ranks[1].reads_others = false;
  expect_warning(ranks, "cannot read each other's memory", "single_copy_mechanism=none");
  for (auto const& [name, value] :
       Variables{{"OMPI_MCA_btl_vader_single_copy_mechanism", "none"}, {"OMPI_MCA_btl", "self,tcp"}}) {
    ranks[0].environment = {{name, value}};
    EXPECT_THAT(judge_launch(ranks).warnings, IsEmpty()) << name;
  }
}

TEST(Launch, NodesOfOneNameAreToldOf) {
  auto ranks = sound_launch(2, 2, {});
  for (auto& facts : ranks) facts.host = "node";
  expect_warning(ranks, "2 nodes have the host name node", "self,tcp");
}

}  // namespace
}  // namespace fsllm
