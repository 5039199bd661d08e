// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/app/command_line.hpp"
#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// Asks the command line for a text about the configuration instead of a run?
bool is_information_asked(CommandLine const& line);
/// --describe, --print-schema, --print-markdown: no MPI, no files.
int information_command(CommandLine const& line);
/// Collective: --check-env, --check, --print-config, or the whole run.
int run_command(CommandLine const& line, Communicator const& world);

}  // namespace fsllm
