// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/app/command_line.hpp"
#include "fsllm/fed/run_directory.hpp"

namespace fsllm {

/// Rank 0: the page of a run that has ended, unless it is newer than the results. What goes wrong is a
/// warning: it costs no result.
void write_report(RunDirectory const& run, OutputFolder& folder);

/// fsllm_hpc --compare RUN RUN [...] [--out FILE.html].
void compare_command(CommandLine const& line);

}  // namespace fsllm
