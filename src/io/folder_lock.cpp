// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/folder_lock.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kAttempts = 20;  ///< for an owner that is just writing, or one who takes over too
constexpr auto kPause = std::chrono::milliseconds(50);

/// Changes whenever the machine starts.
std::string boot_id() {
  std::string id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
  return id;
}

/// Process numbers mean something within one namespace only (containers).
std::string process_namespace() {
  std::error_code problem;
  return fs::read_symlink("/proc/self/ns/pid", problem).string();
}

struct ProcessState {
  char state = 'X';         ///< 'Z' has ended, 'X' is not there
  std::string start_ticks;  ///< since boot: a number that is used again has another one
};

ProcessState process_state(int64_t pid) {
  std::string line;
  std::getline(std::ifstream(fmt::format("/proc/{}/stat", pid)), line);
  auto const name_end = line.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream fields(line.substr(name_end + 2));
  ProcessState found;
  fields >> found.state;
  for (int field = 4; field <= 22; ++field) fields >> found.start_ticks;
  return found;
}

std::string now() {
  std::time_t const seconds = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&seconds, &local);
  std::array<char, 64> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S %z", &local);
  return text.data();
}

json this_process() {
  return {{"fsllm_format", "lock"},
          {"host", host_name()},
          {"pid", ::getpid()},
          {"start", now()},
          {"start_ticks", process_state(::getpid()).start_ticks},
          {"boot", boot_id()},
          {"namespace", process_namespace()},
          {"job", batch_job().id},
          {"restarts", batch_job().restarts}};
}

/// Why the owner cannot be alive; "" where it may be.
std::string why_gone(json const& owner) {
  auto const job = batch_job();
  if (!job.id.empty() && owner.value("job", "") == job.id && owner.value("restarts", 0) < job.restarts)
    return fmt::format("it was an earlier start of this job {}", job.id);
  if (owner.value("host", "") != host_name()) return "";
  if (owner.value("boot", "") != boot_id()) return "the machine was started anew since";
  if (owner.value("namespace", "") != process_namespace()) return "";
  auto const process = process_state(owner.value("pid", int64_t{0}));
  bool const same = process.start_ticks == owner.value("start_ticks", "");
  return process.state == 'X' || process.state == 'Z' || !same ? "that process has ended" : "";
}

std::string owner_text(json const& owner) {
  auto const job = owner.value("job", "");
  return fmt::format("process {} on {} since {}{}", owner.value("pid", int64_t{0}), owner.value("host", "?"),
                     owner.value("start", "?"), job.empty() ? "" : fmt::format(" (job {})", job));
}

/// False if the file is there already.
bool create(fs::path const& file, std::string const& content) {
  int const descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (descriptor < 0 && errno == EEXIST) return false;
  FSLLM_CHECK(descriptor >= 0, "cannot write {} ({}). Check the folder's permissions and free space.",
              file.string(), std::strerror(errno));
  bool const written =
      ::write(descriptor, content.data(), content.size()) == static_cast<ssize_t>(content.size());
  int const reason = errno;
  ::close(descriptor);
  if (!written) ::unlink(file.c_str());
  FSLLM_CHECK(written, "cannot write {} ({}). Free some space.", file.string(), std::strerror(reason));
  return true;
}

/// The file's text; "" where it is gone or not yet written.
std::string content_of(fs::path const& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// Removes the lock of an owner that is gone, unless another process did so first and has its own there now.
void remove_abandoned(fs::path const& file, std::string const& content) {
  auto aside = file;
  aside += fmt::format(".{}.{}", ::getpid(), host_name());
  if (::rename(file.c_str(), aside.c_str()) != 0) return;
  if (content_of(aside) != content) static_cast<void>(!::link(aside.c_str(), file.c_str()));
  ::unlink(aside.c_str());
}

}  // namespace

FolderLock::FolderLock(fs::path folder, fs::path file)
    : folder_(std::move(folder)), file_(std::move(file)), content_(this_process().dump() + "\n") {
  std::string held;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (create(file_, content_)) return;
    held = content_of(file_);
    auto const owner = json::parse(held, nullptr, false);
    if (owner.is_object()) {
      auto const gone = why_gone(owner);
      FSLLM_CHECK(!gone.empty(),
                  "{} is in use by {}. Wait for its end or choose another folder; if that job is known to "
                  "have ended, "
                  "remove {}.",
                  folder_.string(), owner_text(owner), file_.string());
      log_info("{} was left by {}; {}", folder_.string(), owner_text(owner), gone);
      remove_abandoned(file_, held);
      continue;
    }
    std::this_thread::sleep_for(kPause);
  }
  fail(fmt::format("{} is in use ({} does not say by whom). If no job writes there, remove that file.",
                   folder_.string(), file_.string()));
}

std::string lock_holder(fs::path const& file) {
  auto const content = content_of(file);
  if (content.empty()) return "";
  auto const owner = json::parse(content, nullptr, false);
  if (!owner.is_object()) return "an unknown process";
  return why_gone(owner).empty() ? owner_text(owner) : "";
}

FolderLock::~FolderLock() {
  if (is_held()) ::unlink(file_.c_str());
}

bool FolderLock::is_held() const {
  return content_of(file_) == content_;
}

void FolderLock::check() const {
  auto const content = content_of(file_);
  if (content == content_) return;
  auto const owner = json::parse(content, nullptr, false);
  FSLLM_CHECK(!owner.is_object(),
              "{} was taken over by {} while this job was writing to it. Let one of them run.",
              folder_.string(), owner_text(owner));
  fail(fmt::format(
      "{} was removed, or can no longer be read, while this job was writing to it. Start it again.",
      folder_.string()));
}

}  // namespace fsllm
