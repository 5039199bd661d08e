// SPDX-License-Identifier: Apache-2.0
#include "time_limit.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"

namespace fsllm {
namespace {

/// Seconds that a busy Slurm may take to answer.
constexpr int kPatience = 20;

bool is_number(std::string const& text) {
  return !text.empty() && text.size() < 12 &&
         std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

/// What squeue says; "" where it does not answer.
std::string time_left_by_squeue(std::string const& job) {
  auto const command =
      fmt::format("timeout {} squeue --noheader --job {} --format %L 2> /dev/null", kPatience, job);
  std::unique_ptr<FILE, int (*)(FILE*)> const pipe(::popen(command.c_str(), "r"), ::pclose);
  std::string said;
  char buffer[64];
  while (pipe && std::fgets(buffer, sizeof buffer, pipe.get()) != nullptr) said += buffer;
  while (!said.empty() && (said.back() == '\n' || said.back() == ' ')) said.pop_back();
  said.erase(0, said.find_first_not_of(' '));
  return said;
}

}  // namespace

std::optional<double> parse_time_left(std::string const& text) {
  auto const dash = text.find('-');
  double const days = dash == std::string::npos ? 0 : std::atof(text.c_str());
  auto const clock = dash == std::string::npos ? text : text.substr(dash + 1);
  bool const valid = !clock.empty() && clock.find(':') != std::string::npos &&
                     text.find_first_not_of("0123456789:-") == std::string::npos;
  if (!valid) return {};
  double seconds = 0;
  for (size_t at = 0; at != std::string::npos;) {
    seconds = seconds * 60 + std::atof(clock.c_str() + at);
    at = clock.find(':', at);
    if (at != std::string::npos) ++at;
  }
  return days * 86400 + seconds;
}

std::optional<double> seconds_left_in_job() {
  for (auto const* name : {"FSLLM_JOB_END_TIME", "SLURM_JOB_END_TIME"})
    if (auto const end = environment_variable(name); is_number(end)) return std::stod(end) - unix_time();
  auto const job = environment_variable("SLURM_JOB_ID");
  if (!is_number(job)) return {};
  auto const said = time_left_by_squeue(job);
  if (said.empty())
    log_warning(
        "the time limit of job {} is not known (squeue does not answer on {}): the run does not stop before "
        "it. "
        "Set FSLLM_JOB_END_TIME, in seconds since 1970.",
        job, host_name());
  return parse_time_left(said);
}

void stop_before_time_limit(double margin, Communicator const& comm) {
  std::string text;
  if (comm.rank() == 0)
    if (auto const seconds = seconds_left_in_job()) text = std::to_string(std::max(0.0, *seconds));
  comm.broadcast(text, 0);
  if (text.empty()) return;
  double const left = std::stod(text), kept = std::min(margin, left / 4);
  log_info("this job ends in {:.0f} s; training stops {:.0f} s before that", left, kept);
  if (margin > left / 2 && comm.rank() == 0)
    log_warning(
        "hpc.time_limit_margin_s = {:.0f} ({:.0f} s are left of this job, a quarter of which is kept to "
        "write its "
        "state). Give the job more time.",
        margin, left);
  set_deadline(std::chrono::steady_clock::now() +
               std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                   std::chrono::duration<double>(left - kept)));
}

}  // namespace fsllm
