// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/interrupt.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>

namespace fsllm {
namespace {

/// Two buffers: the handler reads the one that is not being written.
struct Note {
  std::array<char, 512> text{};
  size_t length = 0;
  bool deferred = false;
};
std::array<Note, 2> notes;
std::atomic<int> current{0};
std::atomic<bool> signalled{false};
std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();

void end_as_usual(int signal) {
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

extern "C" void handle_signal(int signal) {
  auto const& note = notes[static_cast<size_t>(current.load())];
  if (signalled.exchange(true)) {
    if (signal == SIGINT || !note.deferred) end_as_usual(signal);
    return;
  }
  if (note.length > 0) static_cast<void>(!::write(STDERR_FILENO, note.text.data(), note.length));
  if (!note.deferred) end_as_usual(signal);
}

/// The handler runs on a stack of its own: while oneDNN multiplies on AVX-512, the stack pointer of this
/// thread may point into memory of the heap, and the frame of a signal there would overwrite what lies before
/// it. The system gives a signal to the main thread, which calls this.
void use_own_stack() {
  alignas(64) static std::array<char, size_t{128} << 10> memory;  // AMX alone takes 11 KiB of a frame
  stack_t stack{};
  stack.ss_sp = memory.data();
  stack.ss_size = memory.size();
  ::sigaltstack(&stack, nullptr);
}

void set_handler(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  ::sigaction(signal, &action, nullptr);
}

}  // namespace

void set_signal_note(std::string const& note, OnSignal action) {
  int const next = 1 - current.load();
  auto& into = notes[static_cast<size_t>(next)];
  auto const text = note.empty() ? note : "\n" + note.substr(0, 500) + "\n";
  std::copy(text.begin(), text.end(), into.text.begin());
  into.length = text.size();
  into.deferred = action == OnSignal::deferred;
  current.store(next);
  bool const ignored = action == OnSignal::ignored;
  use_own_stack();
  for (int const signal : {SIGINT, SIGTERM, SIGUSR1}) set_handler(signal, ignored ? SIG_IGN : handle_signal);
}

void set_deadline(std::chrono::steady_clock::time_point when) {
  deadline = when;
}

bool deadline_has_come() {
  return std::chrono::steady_clock::now() >= deadline;
}

bool interrupted() {
  return signalled.load() || deadline_has_come();
}

void ignore_write_signals() {
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace fsllm
