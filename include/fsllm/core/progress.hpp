// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace fsllm {

/// "12 s", "3:05 min", "2:10 h".
std::string duration_text(double seconds);

/// A progress line for people: count, time left, a note (the loss) and rate, as much of it as the terminal is
/// wide. It is redrawn in place and gone when the work is done; without a terminal there is none.
class Progress {
 public:
  /// `later`: units that come after this work, for the time that is left of all. `others`: told now and then
  /// what is done here, shown or not, says what is done elsewhere.
  Progress(std::string title, int64_t total, std::string unit, bool enabled, int64_t later = 0,
           std::function<int64_t(int64_t done)> others = {});
  ~Progress();
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;
  void advance(int64_t by, std::string const& note = "");

 private:
  void show();
  int64_t tell_others();
  std::string title_, unit_, note_;
  int64_t total_, later_, done_ = 0;
  std::function<int64_t(int64_t)> others_;
  bool enabled_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, shown_;
};

}  // namespace fsllm
