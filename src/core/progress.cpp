// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/progress.hpp"

#include <fmt/core.h>

#include <cmath>

#include "fsllm/core/log.hpp"

namespace fsllm {
namespace {

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

std::string duration_text(double seconds) {
  auto const whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

Progress::Progress(std::string title, int64_t total, std::string unit, bool enabled, double plain_interval_s)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(total),
      enabled_(enabled),
      terminal_(output_is_terminal()),
      plain_interval_s_(plain_interval_s),
      start_(std::chrono::steady_clock::now()),
      shown_(start_) {}

Progress::~Progress() {
  if (enabled_ && done_ > 0) show(true);
}

void Progress::advance(int64_t by, std::string const& note) {
  done_ += by;
  if (!note.empty()) note_ = note;
  double const interval = terminal_ ? 0.1 : plain_interval_s_;
  if (enabled_ && seconds_between(shown_, std::chrono::steady_clock::now()) >= interval) show(false);
}

void Progress::show(bool last) {
  shown_ = std::chrono::steady_clock::now();
  double const elapsed = seconds_between(start_, shown_);
  double const rate = elapsed > 0 ? static_cast<double>(done_) / elapsed : 0;
  std::string line = fmt::format("{} {}/{} {}, {:.3g} {}/s", title_, done_, total_, unit_, rate, unit_);
  if (last)
    line += fmt::format(", {}", duration_text(elapsed));
  else if (rate > 0)
    line += fmt::format(", {} left", duration_text(static_cast<double>(total_ - done_) / rate));
  if (!note_.empty()) line += ", " + note_;
  if (terminal_)
    fmt::print("\r\033[K{}{}", line, last ? "\n" : "");
  else
    fmt::print("{}\n", line);
  std::fflush(stdout);
}

}  // namespace fsllm
