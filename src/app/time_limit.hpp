// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>

#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// squeue's %L, as "59:30", "23:59:59" or "2-00:00:00", in seconds; none for "UNLIMITED" and other words.
std::optional<double> parse_time_left(std::string const& text);

/// What is left of this job, by FSLLM_JOB_END_TIME (of a job script) or SLURM_JOB_END_TIME, or by squeue
/// where an older Slurm does not set it; none without a job or a limit.
std::optional<double> seconds_left_in_job();

/// Collective: from `margin` seconds before the end of this job on (and never in the first three
/// quarters of the time that is left) interrupted() is true on every rank. Without a job or a
/// limit nothing happens.
void stop_before_time_limit(double margin, Communicator const& comm);

}  // namespace fsllm
