// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/progress.hpp"

#include <fmt/core.h>

#include <cmath>
#include <vector>

#include "fsllm/core/log.hpp"

namespace fsllm {
namespace {

constexpr double kRedrawSeconds = 0.1;

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

/// As many parts as a line of this width holds; the first one cut where it alone is too long.
std::string fitted(std::vector<std::string> const& parts, size_t width) {
  auto line = parts.front().substr(0, width);
  for (size_t i = 1; i < parts.size(); ++i)
    if (line.size() + 2 + parts[i].size() <= width) line += ", " + parts[i];
  return line;
}

}  // namespace

std::string duration_text(double seconds) {
  auto const whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  if (whole < 48 * 3600) return fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
  return fmt::format("{} days {} h", whole / 86400, whole / 3600 % 24);
}

Progress::Progress(std::string title, int64_t total, std::string unit, bool enabled, int64_t later,
                   std::function<int64_t(int64_t done)> others)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(total),
      later_(later),
      others_(std::move(others)),
      enabled_(enabled && output_is_terminal() && shows_info()),
      start_(std::chrono::steady_clock::now()),
      shown_(start_) {}

Progress::~Progress() {
  if (!drawn_) return;
  fmt::print("\r\033[K");
  std::fflush(stdout);
}

void Progress::advance(int64_t by, std::string const& note) {
  done_ += by;
  if (!note.empty()) note_ = note;
  if (seconds_between(shown_, std::chrono::steady_clock::now()) < kRedrawSeconds) return;
  if (enabled_)
    show();
  else if (others_)
    tell_others();
}

int64_t Progress::tell_others() {
  shown_ = std::chrono::steady_clock::now();
  return done_ + (others_ ? others_(done_) : 0);
}

void Progress::show() {
  int64_t const done = tell_others();
  double const elapsed = seconds_between(start_, shown_);
  double const rate = elapsed > 0 ? static_cast<double>(done) / elapsed : 0;
  std::vector<std::string> parts{fmt::format("{} {}/{} {}", title_, done, total_, unit_)};
  auto const left = [&](int64_t units) { return duration_text(static_cast<double>(units) / rate); };
  if (rate > 0) parts.push_back(left(total_ - done) + " left");
  if (rate > 0 && later_ > 0) parts.push_back("run " + left(total_ - done + later_) + " left");
  if (!note_.empty()) parts.push_back(note_);
  if (rate > 0) parts.push_back(fmt::format("{:.3g} {}/s", rate, unit_));
  fmt::print("\r\033[K{}", fitted(parts, static_cast<size_t>(output_width() - 1)));
  std::fflush(stdout);
  drawn_ = true;
}

}  // namespace fsllm
