// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fsllm::detail {

/// Starts a program in `folder`, its output in the file `log`. It is in a process group of its own, so that a
/// terminal's Ctrl-C reaches it through us alone, and gets SIGTERM when this process dies.
pid_t start_child(std::vector<std::string> const& command, std::filesystem::path const& folder,
                  std::filesystem::path const& log);
/// The exit code (128 + signal where it was killed), or nothing while it runs.
std::optional<int> ended(pid_t child);
/// The same when it has ended.
int wait_for(pid_t child);

/// What a program said last: its message behind "error: ", else its last lines, at most `lines`.
std::string last_words(std::filesystem::path const& log, size_t lines);

}  // namespace fsllm::detail
