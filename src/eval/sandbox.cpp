// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/sandbox.hpp"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <random>
#include <vector>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

constexpr uid_t kNobody = 65534;
constexpr char const* kPython = "/usr/bin/python3";
constexpr size_t kWordBytes = 32;

/// The number of processes is limited in the sandbox's own user namespace, where nobody else's count. The
/// word that stands for success is a local name of a frame that the program does not run in.
constexpr char const* kRunner = R"(
import os, resource, sys
def run():
    write, end = os.write, os.dup(1)
    processes, word, program = sys.stdin.buffer.read().split(b"\n", 2)
    nothing = os.open("/dev/null", os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nothing, output)
    resource.setrlimit(resource.RLIMIT_NPROC, (int(processes), int(processes)))
    exec(compile(program.decode(), "program", "exec"), {"__name__": "program"})
    write(end, word)
run()
)";

/// A pipe whose ends close by themselves.
struct Pipe {
  int ends[2] = {-1, -1};
  Pipe() {
    FSLLM_CHECK(::pipe2(ends, O_CLOEXEC) == 0, "no pipe for the sandbox ({}). Raise ulimit -n.",
                std::strerror(errno));
  }
  ~Pipe() {
    close(0);
    close(1);
  }
  Pipe(Pipe const&) = delete;
  Pipe& operator=(Pipe const&) = delete;
  void close(int end) {
    if (ends[end] >= 0) ::close(ends[end]);
    ends[end] = -1;
  }
};

std::string find_bwrap() {
  char const* path = std::getenv("PATH");
  std::string const folders = path == nullptr ? "/usr/bin:/bin" : path;
  for (size_t at = 0; at <= folders.size();) {
    auto const end = std::min(folders.find(':', at), folders.size());
    auto const file = fs::path(folders.substr(at, end - at)) / "bwrap";
    if (::access(file.c_str(), X_OK) == 0) return file.string();
    at = end + 1;
  }
  return "";
}

std::vector<std::string> sandbox_command(std::string const& bwrap) {
  std::vector<std::string> words{bwrap,           "--unshare-all", "--unshare-user", "--die-with-parent",
                                 "--new-session", "--clearenv",    "--cap-drop",     "ALL",
                                 "--uid",         "65534",         "--gid",          "65534",
                                 "--hostname",    "sandbox",       "--ro-bind",      "/usr",
                                 "/usr"};
  for (std::string const name : {"/bin", "/lib", "/lib64"}) {
    if (!fs::exists(name)) continue;
    if (fs::is_symlink(name))
      words.insert(words.end(), {"--symlink", "usr" + name, name});
    else
      words.insert(words.end(), {"--ro-bind", name, name});
  }
  words.insert(words.end(), {"--dev", "/dev", "--remount-ro", "/dev", "--chdir", "/", "--remount-ro", "/",
                             kPython, "-I", "-c", kRunner});
  return words;
}

void limit(int resource, rlim_t value) {
  rlimit const both{value, value};
  ::setrlimit(static_cast<__rlimit_resource>(resource), &both);
}

/// In the child: only calls that a fork allows.
[[noreturn]] void become_sandbox(char* const* words, SandboxLimits const& limits, int in, int out, int err) {
  ::setpgid(0, 0);
  ::dup2(in, 0);
  ::dup2(out, 1);
  ::dup2(err, 2);
  limit(RLIMIT_CPU, static_cast<rlim_t>(limits.cpu_seconds));
  limit(RLIMIT_AS, static_cast<rlim_t>(limits.memory_bytes));
  limit(RLIMIT_FSIZE, static_cast<rlim_t>(limits.file_bytes));
  limit(RLIMIT_NOFILE, 64);
  limit(RLIMIT_CORE, 0);
  ::signal(SIGPIPE, SIG_DFL);
  ::signal(SIGXFSZ, SIG_DFL);
  // Root would be exempt from limits of processes.
  if (::getuid() == 0 && (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0))
    ::_exit(126);
  ::execv(words[0], words);
  ::_exit(127);
}

struct SandboxEnd {
  std::string out, err;  ///< their first bytes
};

/// Feeds `input` and collects until there is as much as a word, the sandbox has ended or its time is over;
/// what is left is killed.
SandboxEnd run_sandbox(std::string const& input, SandboxLimits const& limits) {
  Pipe in, out, err;
  auto words = sandbox_command(find_bwrap());
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  auto const child = ::fork();
  FSLLM_CHECK(child >= 0, "no process for the sandbox ({}). Raise ulimit -u.", std::strerror(errno));
  if (child == 0) become_sandbox(pointers.data(), limits, in.ends[0], out.ends[1], err.ends[1]);
  in.close(0);
  out.close(1);
  err.close(1);
  for (int const end : {in.ends[1], out.ends[0], err.ends[0]}) ::fcntl(end, F_SETFL, O_NONBLOCK);
  SandboxEnd result;
  size_t fed = 0;
  auto const stop =
      std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::nanoseconds>(
                                             std::chrono::duration<double>(limits.wall_seconds));
  auto const take = [](int& end, std::string& text) {
    char bytes[4096];
    auto const count = ::read(end, bytes, sizeof bytes);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
      ::close(end);
      end = -1;
    } else if (count > 0 && text.size() < 4096) {
      text.append(bytes, static_cast<size_t>(count));
    }
  };
  while ((out.ends[0] >= 0 || err.ends[0] >= 0) && result.out.size() < kWordBytes) {
    auto const left =
        std::chrono::duration_cast<std::chrono::milliseconds>(stop - std::chrono::steady_clock::now())
            .count();
    if (left <= 0) break;
    pollfd ends[3] = {{out.ends[0], POLLIN, 0}, {err.ends[0], POLLIN, 0}, {in.ends[1], POLLOUT, 0}};
    if (::poll(ends, 3, static_cast<int>(left)) < 0 && errno != EINTR) break;
    if (ends[0].revents != 0) take(out.ends[0], result.out);
    if (ends[1].revents != 0) take(err.ends[0], result.err);
    if (ends[2].revents != 0) {
      auto const count = ::write(in.ends[1], input.data() + fed, input.size() - fed);
      if (count > 0) fed += static_cast<size_t>(count);
      if (fed == input.size() || (count < 0 && errno != EAGAIN && errno != EINTR)) in.close(1);
    }
  }
  // Its namespace of processes dies with the first of them.
  ::kill(-child, SIGKILL);
  ::kill(child, SIGKILL);
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return result;
}

std::string random_word() {
  std::random_device device;
  std::string word;
  while (word.size() < kWordBytes) word += fmt::format("{:08x}", device());
  return word;
}

std::string find_problem() {
  if (find_bwrap().empty()) return "bwrap is not on the PATH; it is in the package bubblewrap";
  if (::access(kPython, X_OK) != 0) return std::string(kPython) + " is not there";
  auto const word = random_word();
  auto const end = run_sandbox("4\n" + word + "\nx = 1\n", {});
  if (end.out == word) return "";
  auto const said = end.err.substr(0, end.err.find('\n'));
  return "bwrap gives no namespaces here: " + (said.empty() ? std::string("it ended without a word") : said);
}

}  // namespace

std::string const& sandbox_problem() {
  static std::string const problem = find_problem();
  return problem;
}

bool passes_in_sandbox(std::string const& program, SandboxLimits const& limits) {
  auto const word = random_word();
  auto const input = fmt::format("{}\n{}\n", limits.processes, word) + program;
  return run_sandbox(input, limits).out.starts_with(word);
}

}  // namespace fsllm
