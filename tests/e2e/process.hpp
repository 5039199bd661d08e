// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support.hpp"

namespace fsllm::test {

struct Outcome {
  int exit_code = 0;  ///< 128 + signal when killed
  std::string out, err;
};

/// Runs a program of this build and waits; `np` 0 starts it without mpiexec. Output is kept in files of
/// `dir`.
Outcome run(std::filesystem::path const& dir, int np, std::vector<std::string> const& arguments);

/// The same with one rank in each of `folders`, its working directory.
Outcome run_apart(std::filesystem::path const& dir, std::vector<std::filesystem::path> const& folders,
                  std::vector<std::string> const& arguments);

/// Starts it in the background in a process group of its own.
class Background {
 public:
  Background(std::filesystem::path const& dir, int np, std::vector<std::string> const& arguments);
  ~Background();
  /// Kills the whole group, ranks included, with SIGKILL and waits for its end.
  void kill_hard();
  bool running();

 private:
  pid_t pid_;
};

/// One YAML file in `dir`.
std::filesystem::path write_config(std::filesystem::path const& dir, std::string const& yaml);
std::string read_text(std::filesystem::path const& path);
/// Events of metrics.jsonl, in order.
std::vector<nlohmann::json> read_events(std::filesystem::path const& path);
/// The deterministic part of the round events: no times, bytes or memory.
std::string training_record(std::filesystem::path const& metrics);

}  // namespace fsllm::test
