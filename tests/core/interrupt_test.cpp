// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/interrupt.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <ctime>

#include "fsllm/core/matmul.hpp"

namespace fsllm {
namespace {

/// SIGUSR1 to this process, every 50 µs.
void send_signals() {
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  timer_t timer{};
  ::timer_create(CLOCK_MONOTONIC, &event, &timer);
  itimerspec const often{{0, 50'000}, {0, 50'000}};
  ::timer_settime(timer, 0, &often, nullptr);
}

/// Ends the process: 0, where all products were the same and a signal has come.
[[noreturn]] void multiply_under_signals() {
  use_matmul_kernels();
  at::set_num_threads(1);
  set_signal_note("", OnSignal::deferred);
  send_signals();
  bool same = true;
  for (int64_t const columns : {4, 8, 64})
    for (int64_t const terms : {520, 1030}) {
      auto const a = at::randn({520, terms}), b = at::randn({terms, columns});
      auto const first = at::mm(a, b);
      for (int i = 0; i < 1000; ++i) same = same && at::equal(at::mm(a, b), first);
    }
  std::_Exit(same && interrupted() ? 0 : 1);
}

/// oneDNN's products for AVX-512 keep values where a signal's frame would go.
TEST(Interrupt, SignalsDoNotDisturbProducts) {
  EXPECT_EXIT(multiply_under_signals(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace fsllm
