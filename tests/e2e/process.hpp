// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
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

/// The same under a limit of the system (RLIMIT_...) on each of its processes.
Outcome run_limited(std::filesystem::path const& dir, int np, std::vector<std::string> const& arguments,
                    int resource, uint64_t value);

/// The same by a user who is not root: if root runs the tests, user 65534 where that user reaches the
/// programs, otherwise root without the rights to pass over permissions.
Outcome run_unprivileged(std::filesystem::path const& dir, int np, std::vector<std::string> const& arguments);
/// Makes that user the owner of a folder and all that is in it.
void give_to_unprivileged_user(std::filesystem::path const& dir);

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
  /// Kills the launcher alone, or the rank-th of the processes that it started, and waits for the launcher's
  /// end.
  void kill_launcher();
  void kill_rank(size_t rank);
  /// Sends a signal to the first process alone: the launcher hands it on.
  void signal(int number);
  void signal_rank(size_t rank, int number);
  bool running();
  /// The exit code, where the process ends within so long.
  std::optional<int> ends_within(std::chrono::seconds patience);

 private:
  pid_t pid_;
};

/// Polls until the condition holds; false where it never does.
bool comes(std::function<bool()> const& condition, std::chrono::seconds patience = std::chrono::seconds(60));

/// One YAML file in `dir`.
std::filesystem::path write_config(std::filesystem::path const& dir, std::string const& yaml);
std::string read_text(std::filesystem::path const& path);
/// SHA-256 of each file of a folder by its name, without the program's own list (the subfolder .fsllm).
std::map<std::string, std::string> file_checksums(std::filesystem::path const& dir);
/// Events of metrics.jsonl, in order.
std::vector<nlohmann::json> read_events(std::filesystem::path const& path);
/// The deterministic part of metrics.jsonl and of metrics_clients.jsonl beside it: no times, bytes or memory.
std::string training_record(std::filesystem::path const& metrics);

}  // namespace fsllm::test
