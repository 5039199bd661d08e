// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>

namespace fsllm {

struct SandboxLimits {
  int64_t cpu_seconds = 3;                  ///< human-eval's time-out
  double wall_seconds = 12;                 ///< for what sleeps or waits
  int64_t memory_bytes = int64_t{1} << 30;  ///< of addresses, each process
  int64_t processes = 8;
  int64_t file_bytes = int64_t{1} << 20;
};

/// "", or why Python programs cannot be run in a sandbox here: bubblewrap or /usr/bin/python3 is not there,
/// or the system gives no namespaces. Tried out once a process.
std::string const& sandbox_problem();

/// Runs a Python program that nobody trusts, and says whether it came to its end without an exception, an
/// exit or a time-out. bubblewrap (bwrap) gives it namespaces of its own (user, processes, network, IPC), a
/// root that holds /usr and empty /dev alone and cannot be written, no environment, no capabilities and an
/// ordinary user, also where root calls; limits hold for each of its processes. It can lie about its end only
/// by finding a random word in the memory of its interpreter.
bool passes_in_sandbox(std::string const& program, SandboxLimits const& limits = {});

}  // namespace fsllm
