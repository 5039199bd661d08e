// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace fsllm {

/// "12 s", "3:05 min", "2:10 h".
std::string duration_text(double seconds);

/// A progress line for people: count, rate, time left and a note (the loss). On a terminal it is redrawn
/// in place; elsewhere a plain line is printed at most every `plain_interval_s` seconds and at the end.
class Progress {
 public:
  Progress(std::string title, int64_t total, std::string unit, bool enabled, double plain_interval_s = 30);
  ~Progress();
  void advance(int64_t by, std::string const& note = "");

 private:
  void show(bool last);
  std::string title_, unit_, note_;
  int64_t total_, done_ = 0;
  bool enabled_, terminal_;
  double plain_interval_s_;
  std::chrono::steady_clock::time_point start_, shown_;
};

}  // namespace fsllm
