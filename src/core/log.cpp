// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/log.hpp"

#include <fcntl.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"

namespace fsllm {
namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

bool started_by_mpirun() {
  return std::getenv("OMPI_COMM_WORLD_RANK") != nullptr || std::getenv("PMI_RANK") != nullptr;
}

/// Log level and rank prefix are the only process-wide state of the program.
spdlog::logger& logger() {
  static std::shared_ptr<spdlog::logger> const instance = [] {
    auto const console = std::make_shared<spdlog::sinks::stdout_color_sink_mt>();
    char const* const no_color = std::getenv("NO_COLOR");  // no-color.org
    if (!output_is_terminal() || (no_color != nullptr && *no_color != '\0'))
      console->set_color_mode(spdlog::color_mode::never);
    auto made = std::make_shared<spdlog::logger>("fsllm", console);
    made->set_pattern("%H:%M:%S %^%l%$ %v");
    return made;
  }();
  return *instance;
}

/// mpirun gives its ranks a terminal of their own; this is what it writes to itself.
std::string output_of_launcher() {
  return fmt::format("/proc/{}/fd/1", getppid());
}

LogLevel& chosen_level() {
  static LogLevel level = LogLevel::info;
  return level;
}

std::string& file_pattern() {
  static std::string pattern = "%Y-%m-%d %H:%M:%S %l %v";
  return pattern;
}

}  // namespace

bool output_is_terminal() {
  if (isatty(STDOUT_FILENO) == 0) return false;
  if (!started_by_mpirun()) return true;
  std::error_code problem;
  auto const target = std::filesystem::read_symlink(output_of_launcher(), problem).string();
  return !problem && target.starts_with("/dev/") && target != "/dev/null";
}

int output_width() {
  winsize size{};
  int const own = started_by_mpirun() ? open(output_of_launcher().c_str(), O_RDONLY | O_NOCTTY) : -1;
  int const known = ioctl(own >= 0 ? own : STDOUT_FILENO, TIOCGWINSZ, &size);
  if (own >= 0) close(own);
  return known == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

void set_verbosity(LogLevel level) {
  chosen_level() = level;
}

LogLevel verbosity() {
  return chosen_level();
}

bool shows_info() {
  return chosen_level() <= LogLevel::info;
}

void start_log(int rank, int size, LogLevel level) {
  auto const prefix = size > 1 && rank > 0 ? fmt::format("[rank {}] ", rank) : std::string();
  logger().set_pattern("%H:%M:%S %^%l%$ " + prefix + "%v");
  file_pattern() = "%Y-%m-%d %H:%M:%S %l " + prefix + "%v";
  logger().set_level(rank == 0 ? to_spdlog(level) : std::max(spdlog::level::warn, to_spdlog(level)));
}

void log_to_file(std::string const& path) {
  auto const status = std::filesystem::status(path);
  FSLLM_CHECK(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status),
              "{} cannot be written (it is not a regular file). Choose another outdir.", path);
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
    sink->set_pattern(file_pattern());
    logger().sinks().push_back(std::move(sink));
    logger().flush_on(spdlog::level::info);
  } catch (spdlog::spdlog_ex const& error) {
    fail(fmt::format("{} cannot be written ({}). Choose another outdir.", path, error.what()));
  }
}

void log_line(LogLevel level, std::string const& message) {
  logger().log(to_spdlog(level), printable(message));
}

}  // namespace fsllm
