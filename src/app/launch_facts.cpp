// SPDX-License-Identifier: Apache-2.0
#include <sched.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/comm/cores.hpp"
#include "fsllm/comm/nccl.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/io/checksum.hpp"
#include "launch.hpp"
#include "run_record.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

constexpr char const* kVariables[] = {"SLURM_JOB_ID",
                                      "SLURM_NTASKS",
                                      "SLURM_JOB_NUM_NODES",
                                      "SLURM_STEP_ID",
                                      "SLURM_STEP_NUM_NODES",
                                      "SLURM_CPUS_PER_TASK",
                                      "SLURM_GPUS_PER_TASK",
                                      "SLURM_TRES_PER_TASK",
                                      "SLURM_GPUS_ON_NODE",
                                      "CUDA_VISIBLE_DEVICES",
                                      "OMPI_COMM_WORLD_SIZE",
                                      "OMPI_MCA_mpi_yield_when_idle",
                                      "OMPI_MCA_mpi_oversubscribe",
                                      "OMPI_MCA_btl",
                                      "OMPI_MCA_btl_vader_single_copy_mechanism"};

int threads_allowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/// Of a build with CUDA what its driver says; else what CUDA_VISIBLE_DEVICES lists.
int64_t gpus_given() {
  if (is_cuda_build()) return cuda_device_count();
  auto const visible = environment_variable("CUDA_VISIBLE_DEVICES");
  if (visible.empty() || visible == "NoDevFiles") return 0;
  return 1 + std::count(visible.begin(), visible.end(), ',');
}

int64_t lines_in(std::string const& file) {
  std::ifstream stream(file);
  int64_t lines = 0;
  for (std::string line; std::getline(stream, line);) ++lines;
  return lines;
}

/// Collective over a node: may this process read the memory of the next one, as large messages do?
bool reads_next_of(Communicator const& node) {
  static uint64_t const sample = 0x5a5a5a5a12345678;
  json const own{::getpid(), reinterpret_cast<uintptr_t>(&sample)};
  auto const all = node.all_gather(own.dump());
  auto const next = json::parse(all[static_cast<size_t>((node.rank() + 1) % node.size())]);
  uint64_t copy = 0;
  iovec const here{&copy, sizeof copy};
  // An address in another process.
  iovec const there{reinterpret_cast<void*>(next[1].get<uintptr_t>()),  // NOLINT(performance-no-int-to-ptr)
                    sizeof copy};
  bool const reads =
      ::process_vm_readv(next[0].get<pid_t>(), &here, 1, &there, 1, 0) == sizeof copy && copy == sample;
  node.barrier();
  return reads;
}

json json_of(RankFacts const& f) {
  return {f.host,    f.node, f.cores, f.threads,      f.machine_threads, f.processor,  f.mpi,
          f.program, f.cuda, f.gpus,  f.reads_others, f.slots,           f.environment};
}

RankFacts facts_of(json const& j) {
  return {j[0],
          j[1],
          j[2],
          j[3],
          j[4],
          j[5],
          j[6],
          j[7],
          j[8],
          j[9],
          j[10],
          j[11],
          j[12].get<std::map<std::string, std::string>>()};
}

}  // namespace

std::vector<RankFacts> launch_facts(Communicator const& world) {
  auto const node = world.split_by_node();
  RankFacts own;
  own.host = host_name();
  own.node = static_cast<int>(-node.max(-world.rank()));
  own.cores = core_list();
  own.threads = threads_allowed();
  own.machine_threads = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  own.processor = processor();
  own.mpi = mpi_library_version();
  own.program = checksum64_file("/proc/self/exe");
  own.cuda = is_cuda_build();
  own.gpus = gpus_given();
  own.reads_others = reads_next_of(node);
  own.slots = lines_in(environment_variable("PBS_NODEFILE"));
  for (auto const* name : kVariables)
    if (std::getenv(name) != nullptr) own.environment[name] = environment_variable(name);
  std::vector<RankFacts> all;
  for (auto const& text : world.all_gather(json_of(own).dump())) all.push_back(facts_of(json::parse(text)));
  return all;
}

}  // namespace fsllm
