// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// What one rank sees of how it was started.
struct RankFacts {
  std::string host;
  int node = 0;              ///< the lowest rank that shares memory with it
  std::string cores;         ///< hardware threads that it may run on: "0-3,8"
  int threads = 1;           ///< how many these are
  int machine_threads = 1;   ///< how many its node has
  std::string processor;     ///< name and instruction set
  std::string mpi;           ///< mpi_library_version()
  uint64_t program = 0;      ///< checksum of the executable
  bool cuda = false;         ///< a build with CUDA
  int64_t gpus = 0;          ///< that it can use; of a build without CUDA those that it was given
  bool reads_others = true;  ///< memory of the ranks on its node, which large messages are copied from
  int64_t slots = 0;         ///< lines of PBS_NODEFILE
  std::map<std::string, std::string>
      environment;  ///< of launchers and batch systems; what is not set is absent
};

/// Collective: the facts of all ranks. Comes before take_cores(), which binds ranks itself.
std::vector<RankFacts> launch_facts(Communicator const& world);

/// What is wrong with a launch, in the words of an error.
struct LaunchFaults {
  std::vector<std::string> errors;    ///< the run would be wrong
  std::vector<std::string> warnings;  ///< it would be slow, or leave idle what the job was given
};
LaunchFaults judge_launch(std::vector<RankFacts> const& ranks);

/// "ranks 1, 3 (n2, n4)" of those whose numbers are in `chosen`.
std::string ranks_text(std::vector<RankFacts> const& ranks, std::vector<int> const& chosen);

}  // namespace fsllm
