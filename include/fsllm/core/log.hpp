// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fmt/core.h>

#include <string>

namespace fsllm {

enum class LogLevel { debug, info, warning, error };

/// Does a person watch standard output? mpirun gives its ranks a terminal of their own even when its output
/// goes to a file: then its own output counts.
bool output_is_terminal();

/// Columns of that terminal; 80 where it does not tell.
int output_width();

/// What --quiet and --verbose ask for: warnings and errors, or all there is. Before start_log().
void set_verbosity(LogLevel level);
LogLevel verbosity();
/// Whether people are told what goes on, beside warnings.
bool shows_info();

/// Sets the prefix "[rank r]" of ranks above 0 and the lowest level shown. Rank 0 shows `level` and above,
/// the other ranks warnings and errors only. Called once by main; before it, everything from info up is
/// shown.
void start_log(int rank, int size, LogLevel level);

/// Copies every message of this rank to a file as well (`exp_print.log`), appending.
void log_to_file(std::string const& path);

void log_line(LogLevel level, std::string const& message);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace fsllm
