// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>

namespace fsllm {

/// Name of this machine; "?" where the system does not tell it.
std::string host_name();

/// "" where it is not set.
std::string environment_variable(char const* name);

/// Seconds since 1970, by the system's clock.
double unix_time();

/// The batch job that this process is part of, of Slurm or PBS.
struct BatchJob {
  std::string id;  ///< "" outside of one
  int restarts =
      0;  ///< how often it was started before: SLURM_RESTART_COUNT, or FSLLM_RESTART_COUNT of a job script
};
BatchJob batch_job();

/// Seconds since the operating system created this process: dynamic linking and start-up included.
double seconds_since_process_start();
/// Bytes of memory of this process, where n processes that share a page count 1/n of it each: the sum over
/// the ranks of a node is what they use together. 0 where the system does not tell (/proc/self/smaps_rollup).
int64_t proportional_set_size();
/// Bytes that programs can take before the node swaps or kills; 0 where the system does not tell
/// (/proc/meminfo).
int64_t available_memory();

}  // namespace fsllm
