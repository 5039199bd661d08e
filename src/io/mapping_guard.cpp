// SPDX-License-Identifier: Apache-2.0
#include "mapping_guard.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <mutex>

namespace fsllm {
namespace {

constexpr size_t kMostMappings = 1024, kMostMessage = 512;

/// A signal handler may read it at any time: `data` is written last and cleared first. Mappings beyond the
/// table are not guarded.
struct Guarded {
  std::atomic<std::byte const*> data{nullptr};
  size_t size = 0;
  char message[kMostMessage] = {};
};
Guarded g_mappings[kMostMappings];
std::mutex g_change;

void end_with_message(int signal, siginfo_t* info, void*) {
  auto const address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (auto const& mapping : g_mappings) {
    auto const begin = reinterpret_cast<uintptr_t>(mapping.data.load());
    // The last page of a mapping is readable beyond the file's end.
    if (begin == 0 || address < begin || address - begin >= mapping.size) continue;
    [[maybe_unused]] auto const written =
        ::write(STDERR_FILENO, mapping.message, std::strlen(mapping.message));
    ::_exit(2);
  }
  std::signal(signal, SIG_DFL);  // not ours: the access is tried again, and ends the process as usual
}

void install_handler() {
  struct sigaction action {};
  action.sa_sigaction = end_with_message;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

void guard_mapping(std::byte const* data, size_t size, std::filesystem::path const& file) {
  static std::once_flag once;
  std::call_once(once, install_handler);
  std::scoped_lock const lock(g_change);
  for (auto& mapping : g_mappings) {
    if (mapping.data.load() != nullptr) continue;
    auto const text =
        "error: " + file.string() +
        " was cut while it was in use (or its disk failed). Copy it again, and do not change it "
        "during a run.\n";
    std::strncpy(mapping.message, text.c_str(), kMostMessage - 1);
    mapping.size = size;
    mapping.data = data;
    return;
  }
}

void release_mapping(std::byte const* data) {
  std::scoped_lock const lock(g_change);
  for (auto& mapping : g_mappings)
    if (mapping.data.load() == data) mapping.data = nullptr;
}

bool is_guarded(std::span<std::byte const> bytes) {
  auto const first = reinterpret_cast<uintptr_t>(bytes.data());
  std::scoped_lock const lock(g_change);
  return std::any_of(std::begin(g_mappings), std::end(g_mappings), [&](Guarded const& mapping) {
    auto const begin = reinterpret_cast<uintptr_t>(mapping.data.load());
    return begin != 0 && first >= begin && first + bytes.size() <= begin + mapping.size;
  });
}

}  // namespace fsllm
