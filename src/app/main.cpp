// SPDX-License-Identifier: Apache-2.0
#include <iostream>

#include "fsllm/app/commands.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/core/utf8.hpp"

int main(int argc, char** argv) {
  fsllm::prepare_process();
  fsllm::CommandLine line;
  try {
    line = fsllm::parse_command_line(argc, argv);
    if (line.informs()) return fsllm::is_silent_rank() ? 0 : fsllm::information_command(line);
  } catch (fsllm::Error const& error) {
    if (!fsllm::is_silent_rank()) std::cerr << "error: " << fsllm::printable(error.what()) << std::endl;
    return fsllm::kExitBadInput;
  }
  return fsllm::run_program(
      argc, argv, [&](fsllm::Communicator const& world) { return fsllm::run_command(line, world); });
}
