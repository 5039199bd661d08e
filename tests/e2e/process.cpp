// SPDX-License-Identifier: Apache-2.0
#include "process.hpp"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "fsllm/io/files.hpp"

namespace fsllm::test {
namespace {

std::string environment(char const* name) {
  char const* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<std::string> command(int np, std::vector<std::string> const& arguments) {
  std::vector<std::string> words;
  if (np > 0) words = {environment("FSLLM_MPIEXEC"), "-np", std::to_string(np)};
  words.push_back(environment("FSLLM_BIN_DIR") + "/" + arguments.at(0));
  words.insert(words.end(), arguments.begin() + 1, arguments.end());
  return words;
}

constexpr uid_t kNobody = 65534;

enum class Rights { own, nobody, root_without_override };

void take(Rights rights, std::filesystem::path const& home) {
  if (rights == Rights::own) return;
  bool done = setenv("HOME", home.c_str(), 1) == 0;
  if (rights == Rights::nobody)
    done = done && setgroups(0, nullptr) == 0 && setgid(kNobody) == 0 && setuid(kNobody) == 0;
  else
    for (auto const right : {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH})
      done = done && prctl(PR_CAPBSET_DROP, right, 0, 0, 0) == 0;  // holds behind exec
  if (!done) _exit(126);
}

pid_t start(std::filesystem::path const& dir, std::vector<std::string> const& words,
            Rights rights = Rights::own) {
  auto const out = (dir / "stdout.txt").string(), err = (dir / "stderr.txt").string();
  std::vector<char*> argv;
  for (auto const& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t const pid = fork();
  if (pid != 0) return pid;
  setpgid(0, 0);
  dup2(open("/dev/null", O_RDONLY), 0);
  dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
  dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 2);
  take(rights, dir);
  execvp(argv[0], argv.data());
  _exit(127);
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (auto const& entry : std::filesystem::directory_iterator("/proc")) {
    auto const name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    auto const stat = read_text(entry.path() / "stat");
    auto const after_name = stat.rfind(") ");  // the program's name may hold spaces
    if (after_name != std::string::npos && std::atoi(stat.c_str() + after_name + 4) == parent)
      children.push_back(std::stoi(name));
  }
  return children;
}

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

namespace {

Outcome run_words(std::filesystem::path const& dir, std::vector<std::string> const& words,
                  Rights rights = Rights::own) {
  pid_t const pid = start(dir, words, rights);
  int status = 0;
  waitpid(pid, &status, 0);
  return {exit_code_of(status), read_text(dir / "stdout.txt"), read_text(dir / "stderr.txt")};
}

Rights unprivileged(std::filesystem::path const& dir) {
  if (geteuid() != 0) return Rights::own;
  static auto const rights =
      run_words(dir, command(0, {"fsllm_hpc", "--version"}), Rights::nobody).exit_code == 0
          ? Rights::nobody
          : Rights::root_without_override;
  return rights;
}

}  // namespace

Outcome run_unprivileged(std::filesystem::path const& dir, int np,
                         std::vector<std::string> const& arguments) {
  return run_words(dir, command(np, arguments), unprivileged(dir));
}

void give_to_unprivileged_user(std::filesystem::path const& dir) {
  if (unprivileged(dir) != Rights::nobody) return;
  auto const give = [](std::filesystem::path const& path) {
    if (lchown(path.c_str(), kNobody, kNobody) != 0) throw std::runtime_error("cannot give " + path.string());
  };
  give(dir);
  for (auto const& entry : std::filesystem::recursive_directory_iterator(dir)) give(entry.path());
}

Outcome run(std::filesystem::path const& dir, int np, std::vector<std::string> const& arguments) {
  return run_words(dir, command(np, arguments));
}

Outcome run_limited(std::filesystem::path const& dir, int np, std::vector<std::string> const& arguments,
                    int resource, uint64_t value) {
  rlimit old{};
  getrlimit(static_cast<__rlimit_resource>(resource), &old);
  rlimit limit = old;
  limit.rlim_cur = value;
  setrlimit(static_cast<__rlimit_resource>(resource), &limit);
  pid_t const pid = start(dir, command(np, arguments));
  setrlimit(static_cast<__rlimit_resource>(resource), &old);
  int status = 0;
  waitpid(pid, &status, 0);
  return {exit_code_of(status), read_text(dir / "stdout.txt"), read_text(dir / "stderr.txt")};
}

Outcome run_apart(std::filesystem::path const& dir, std::vector<std::filesystem::path> const& folders,
                  std::vector<std::string> const& arguments) {
  // Not -wdir A ... : -wdir B ...: every ':' is a segmentation fault of Debian 13's mpirun (Open MPI 5.0.7).
  auto const count = std::to_string(folders.size());
  std::vector<std::string> words{
      environment("FSLLM_MPIEXEC"),
      "-np",
      count,
      "/bin/sh",
      "-c",
      "eval \"cd \\\"\\${$((${OMPI_COMM_WORLD_RANK:-$PMI_RANK} + 1))}\\\"\" && shift " + count +
          " && exec \"$@\"",
      "sh"};
  for (auto const& folder : folders) words.push_back(folder.string());
  auto const program = command(0, arguments);
  words.insert(words.end(), program.begin(), program.end());
  return run_words(dir, words);
}

Background::Background(std::filesystem::path const& dir, int np, std::vector<std::string> const& arguments) {
  // A killed mpirun of Open MPI 5 leaves its session folder, named by its process id, and the next one of
  // that id fails.
  constexpr char const* kSessions = "PRTE_MCA_prte_tmpdir_base";
  setenv(kSessions, dir.c_str(), 1);
  pid_ = start(dir, command(np, arguments));
  unsetenv(kSessions);
}

Background::~Background() {
  if (pid_ > 0) kill_hard();
}

void Background::kill_hard() {
  // Open MPI puts every rank into a process group of its own.
  for (pid_t const child : children_of(pid_)) kill(child, SIGKILL);
  kill(-pid_, SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
}

void Background::kill_launcher() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void Background::kill_rank(size_t rank) {
  auto const ranks = children_of(pid_);
  if (ranks.empty()) return kill_launcher();  // started without one
  kill(ranks[rank % ranks.size()], SIGKILL);
  // mpiexec of Open MPI 4 can wait for itself (PMIx_server_finalize) when a rank dies while it starts; no
  // rank is left then.
  constexpr int kPolls = 200;
  for (int without_ranks = 0; running() && without_ranks < kPolls;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    without_ranks = children_of(pid_).empty() ? without_ranks + 1 : 0;
  }
  if (running()) kill_launcher();
}

void Background::signal(int number) {
  kill(pid_, number);
}

void Background::signal_rank(size_t rank, int number) {
  kill(children_of(pid_).at(rank), number);
}

std::optional<int> Background::ends_within(std::chrono::seconds patience) {
  auto const deadline = std::chrono::steady_clock::now() + patience;
  for (int status = 0; std::chrono::steady_clock::now() < deadline;
       std::this_thread::sleep_for(std::chrono::milliseconds(20)))
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return exit_code_of(status);
    }
  return std::nullopt;
}

bool Background::running() {
  int status = 0;
  if (pid_ > 0 && waitpid(pid_, &status, WNOHANG) == pid_) pid_ = -1;
  return pid_ > 0;
}

bool comes(std::function<bool()> const& condition, std::chrono::seconds patience) {
  auto const end = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

std::filesystem::path write_config(std::filesystem::path const& dir, std::string const& yaml) {
  auto const path = dir / "run.yaml";
  std::ofstream(path) << yaml;
  return path;
}

std::string read_text(std::filesystem::path const& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::map<std::string, std::string> file_checksums(std::filesystem::path const& dir) {
  std::map<std::string, std::string> found;
  for (auto const& entry : std::filesystem::directory_iterator(dir))
    if (entry.is_regular_file()) found[entry.path().filename().string()] = sha256_file(entry.path());
  return found;
}

std::vector<nlohmann::json> read_events(std::filesystem::path const& path) {
  std::vector<nlohmann::json> events;
  std::istringstream lines(read_text(path));
  for (std::string line; std::getline(lines, line);) events.push_back(nlohmann::json::parse(line));
  return events;
}

std::string training_record(std::filesystem::path const& metrics) {
  std::string record;
  for (auto event : read_events(metrics)) {
    for (auto const* noise :
         {"seconds", "tokens_per_second", "peak_rss_bytes", "bytes_up", "bytes_down", "ranks"})
      event.erase(noise);
    record += event.dump() + "\n";
  }
  for (auto line : read_events(metrics.parent_path() / "metrics_clients.jsonl")) {
    if (line.contains("train")) line["train"].erase("seconds");
    record += line.dump() + "\n";
  }
  return record;
}

}  // namespace fsllm::test
