// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/process.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace fsllm {
namespace {

/// The bytes of a line "NAME:   123 kB"; 0 where there is none.
int64_t bytes_in_line(char const* file, std::string const& name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(name + ":")) return 1024 * std::stoll(line.substr(name.size() + 1));
  return 0;
}

}  // namespace

std::string environment_variable(char const* name) {
  char const* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string host_name() {
  char name[256] = "";
  return gethostname(name, sizeof name - 1) == 0 ? name : "?";
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

BatchJob batch_job() {
  BatchJob job{environment_variable("SLURM_JOB_ID"), 0};
  if (job.id.empty()) job.id = environment_variable("PBS_JOBID");
  for (auto const* name : {"SLURM_RESTART_COUNT", "FSLLM_RESTART_COUNT"})
    job.restarts = std::max(job.restarts, std::atoi(environment_variable(name).c_str()));
  return job;
}

double seconds_since_process_start() {
  std::string stat;
  std::getline(std::ifstream("/proc/self/stat"), stat);
  // Field 22 is the start time in clock ticks since boot; field 2, the name in parentheses, may hold spaces.
  std::istringstream fields(stat.substr(stat.rfind(')') + 2));
  std::string field;
  for (int i = 3; i < 22; ++i) fields >> field;
  double ticks = 0, uptime = 0;
  fields >> ticks;
  std::ifstream("/proc/uptime") >> uptime;
  return uptime - ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

int64_t proportional_set_size() {
  return bytes_in_line("/proc/self/smaps_rollup", "Pss");
}

int64_t available_memory() {
  return bytes_in_line("/proc/meminfo", "MemAvailable");
}

}  // namespace fsllm
