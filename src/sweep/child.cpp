// SPDX-License-Identifier: Apache-2.0
#include "child.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <fstream>

#include "fsllm/core/error.hpp"

namespace fsllm::detail {
namespace {

constexpr int kCannotStart = 127;

int code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Between fork and exec: system calls alone.
[[noreturn]] void become(char* const* words, char const* folder, int log, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(kCannotStart);
  for (int const number : {SIGINT, SIGTERM, SIGUSR1, SIGPIPE, SIGXFSZ}) ::signal(number, SIG_DFL);
  int const nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  if (::chdir(folder) == 0) ::execvp(words[0], words);
  auto const* const why = std::strerror(errno);
  for (auto const* part : {"error: cannot start ", static_cast<char const*>(words[0]), " (", why, ").\n"})
    static_cast<void>(!::write(STDERR_FILENO, part, std::strlen(part)));
  ::_exit(kCannotStart);
}

}  // namespace

pid_t start_child(std::vector<std::string> const& command, std::filesystem::path const& folder,
                  std::filesystem::path const& log) {
  int const out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  FSLLM_CHECK(out >= 0, "cannot write {} ({}). Check the folder's permissions and free space.", log.string(),
              std::strerror(errno));
  std::vector<char*> words;
  for (auto const& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  pid_t const parent = ::getpid();
  pid_t const child = ::fork();
  if (child == 0) become(words.data(), folder.c_str(), out, parent);
  int const reason = errno;
  ::close(out);
  FSLLM_CHECK(child > 0, "cannot start a process ({}). Lower --jobs, or raise the limit (ulimit -u).",
              std::strerror(reason));
  return child;
}

std::optional<int> ended(pid_t child) {
  int status = 0;
  pid_t const who = ::waitpid(child, &status, WNOHANG);
  if (who == 0 || (who < 0 && errno == EINTR)) return {};
  return who == child ? code_of(status) : 1;
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return 1;
  return code_of(status);
}

std::string last_words(std::filesystem::path const& log, size_t lines) {
  constexpr char const* kMark = "error: ";
  std::ifstream in(log);
  std::deque<std::string> last;
  std::string message;
  for (std::string line; std::getline(in, line);) {
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    if (line.starts_with(kMark)) message = line.substr(std::strlen(kMark));
    last.push_back(std::move(line));
    if (last.size() > lines) last.pop_front();
  }
  if (!message.empty()) return message;
  std::string text;
  for (auto const& line : last) text += (text.empty() ? "" : "\n") + line;
  return text.empty() ? "it said nothing" : text;
}

}  // namespace fsllm::detail
