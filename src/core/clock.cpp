// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/clock.hpp"

#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

namespace fsllm {

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

}  // namespace fsllm
