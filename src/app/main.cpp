// SPDX-License-Identifier: Apache-2.0
#include <system_error>

#include "fsllm/app/commands.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"

namespace {

fsllm::Program const kProgram{
    "fsllm_hpc",
    "Federated fine-tuning of large language models over MPI.\n\n"
    "  fsllm_hpc --cfg run.yaml [KEY VALUE | KEY=VALUE]...\n"
    "  mpirun -np 4 fsllm_hpc --cfg run.yaml federate.total_round_num 10\n"
    "  fsllm_hpc --example lora > run.yaml\n"
    "  fsllm_hpc --compare RUN RUN [...] [--out FILE.html]\n",
    {{"cfg", "FILE", "the run's YAML configuration (FS-LLM's keys), or example:NAME"},
     {"client_cfg", "FILE", "per-client overrides, as client_1: {train: {...}}"},
     {"list", "[WHAT]",
      "names of models, adapters, datasets, splitters, templates, algorithms, tasks or examples"},
     {"example", "NAME", "print an example configuration"},
     {"check", "", "validate configuration, data and model, without training"},
     {"check-env", "", "look at ranks, nodes, cores, GPUs, messages and folders; goes without --cfg"},
     {"plan", "", "print what memory and traffic the run takes, without training"},
     {"plan-nodes", "N", "plan for this many nodes"},
     {"plan-tasks-per-node", "N", "plan for this many ranks a node"},
     {"plan-gpu-memory", "SIZE", "plan for GPUs, one a rank, of 32GiB, say"},
     {"plan-node-memory", "SIZE", "plan for nodes with this memory, 384GiB, say"},
     {"ignore-plan", "", "start a run that takes more memory than there is"},
     {"print-config", "", "print the resolved configuration"},
     {"print-schema", "", "print the JSON Schema of the configuration"},
     {"print-markdown", "", "print docs/config.md: all keys as tables"},
     {"describe", "[KEY]", "keys with type, default, range and meaning"},
     {"resume", "[DIR]", "continue a run from its newest good checkpoint"},
     {"overwrite", "", "replace the run that the run directory holds"},
     {"compare", "DIR...", "losses and configurations of several runs beside each other; goes without --cfg"},
     {"out", "FILE.html", "with --compare: a page of overlaid curves"}},
    fsllm::Words::overrides};

}  // namespace

int main(int argc, char** argv) {
  auto const start = fsllm::start_program(kProgram, argc, argv);
  if (!start.line) return start.exit_code;
  try {
    FSLLM_CHECK(start.line->has("compare") || !start.line->has("out"),
                "--out without --compare (a run writes to outdir/expname). Leave it out.");
    if (fsllm::is_information_asked(*start.line))
      return fsllm::is_silent_rank() ? 0 : fsllm::information_command(*start.line);
    FSLLM_CHECK(start.line->has("check-env") || !start.line->text("cfg").empty() ||
                    !start.line->text("resume").empty(),
                "no configuration given (--cfg is missing). Write fsllm_hpc --cfg run.yaml, or see --help.");
  } catch (std::exception const& error) {
    auto const* system = dynamic_cast<std::system_error const*>(&error);
    if (system != nullptr && system->code() == std::errc::broken_pipe) return 0;  // | head
    auto const [message, code] = fsllm::failure_of(error);
    fsllm::print_error_once(message);
    return code;
  }
  return fsllm::run_program(
      argc, argv, [&](fsllm::Communicator const& world) { return fsllm::run_command(*start.line, world); });
}
