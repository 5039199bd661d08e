// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/command_line.hpp"

#include <boost/program_options.hpp>
#include <filesystem>
#include <sstream>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/core/error.hpp"

#ifndef FSLLM_BUILD_FACTS
#define FSLLM_BUILD_FACTS ""
#endif

namespace fsllm {
namespace {

namespace po = boost::program_options;

po::options_description visible_options() {
  po::options_description options("Options");
  auto add = options.add_options();
  add("cfg", po::value<std::string>()->value_name("FILE"), "the run's YAML configuration (FS-LLM's keys)");
  add("client_cfg", po::value<std::string>()->value_name("FILE"),
      "per-client overrides, as client_1: {train: {...}}");
  add("check", "validate configuration, data and model, without training");
  add("print-config", "print the resolved configuration");
  add("print-schema", "print the JSON Schema of the configuration");
  add("print-markdown", "print docs/config.md: all keys as tables");
  add("describe", po::value<std::string>()->value_name("[KEY]"),
      "keys with type, default, range and meaning");
  add("resume", po::value<std::string>()->value_name("[DIR]"),
      "continue a run from its newest good checkpoint");
  add("overwrite", "replace the run that the run directory holds");
  add("version", "version and build facts");
  add("help", "this text");
  return options;
}

/// Stands for the value that was left out.
constexpr char const* kNoValue = "-";

/// Options with an optional value get it in the form --name=value, which leaves nothing to guess.
std::vector<std::string> with_explicit_values(int argc, char const* const* argv) {
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    bool const next = i + 1 < argc && argv[i + 1][0] != '-';
    if (argument == "--describe") argument += std::string("=") + (next ? argv[++i] : kNoValue);
    if (argument == "--resume")
      argument +=
          std::string("=") + (next && std::filesystem::is_directory(argv[i + 1]) ? argv[++i] : kNoValue);
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

std::vector<std::pair<std::string, std::string>> pair_up(std::vector<std::string> const& words) {
  std::vector<std::pair<std::string, std::string>> overrides;
  for (size_t i = 0; i < words.size(); ++i) {
    auto const equals = words[i].find('=');
    if (equals != std::string::npos && equals > 0) {
      overrides.emplace_back(words[i].substr(0, equals), words[i].substr(equals + 1));
      continue;
    }
    FSLLM_CHECK(i + 1 < words.size(),
                "{} stands alone on the command line (a key needs a value). Write {} VALUE or {}=VALUE.",
                words[i], words[i], words[i]);
    overrides.emplace_back(words[i], words[i + 1]);
    ++i;
  }
  return overrides;
}

}  // namespace

CommandLine parse_command_line(int argc, char const* const* argv) {
  po::options_description all = visible_options();
  all.add_options()("words", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("words", -1);
  po::variables_map values;
  try {
    // No short options: "-1" is a value.
    int const style = po::command_line_style::allow_long | po::command_line_style::long_allow_adjacent |
                      po::command_line_style::long_allow_next;
    po::store(po::command_line_parser(with_explicit_values(argc, argv))
                  .options(all)
                  .positional(positional)
                  .style(style)
                  .run(),
              values);
  } catch (po::error const& error) {
    fail(fmt::format("command line: {}. See fsllm_hpc --help.", error.what()));
  }
  CommandLine line;
  auto const text = [&](char const* name) {
    if (values.count(name) == 0) return std::string();
    auto const value = values[name].as<std::string>();
    return value == kNoValue ? std::string() : value;
  };
  line.cfg = text("cfg");
  line.client_cfg = text("client_cfg");
  line.check = values.count("check") != 0;
  line.print_config = values.count("print-config") != 0;
  line.print_schema = values.count("print-schema") != 0;
  line.print_markdown = values.count("print-markdown") != 0;
  line.version = values.count("version") != 0;
  line.help = values.count("help") != 0;
  line.overwrite = values.count("overwrite") != 0;
  if (values.count("describe") != 0) line.describe = text("describe");
  if (values.count("resume") != 0) line.resume = text("resume");
  if (values.count("words") != 0) line.overrides = pair_up(values["words"].as<std::vector<std::string>>());
  FSLLM_CHECK(line.informs() || !line.cfg.empty() || (line.resume && !line.resume->empty()),
              "no configuration given (--cfg is missing). Write fsllm_hpc --cfg run.yaml, or see --help.");
  return line;
}

std::string help_text() {
  std::ostringstream text;
  text << "Federated fine-tuning of large language models over MPI.\n\n"
          "  fsllm_hpc --cfg run.yaml [KEY VALUE | KEY=VALUE]...\n"
          "  mpirun -np 4 fsllm_hpc --cfg run.yaml federate.total_round_num 10\n\n"
       << visible_options() << "\nExit codes: 0 done, 1 internal error, 2 bad input.\n";
  return text.str();
}

std::string version_text() {
  return fmt::format("fsllm_hpc {}\n{}MPI: {}\n", FSLLM_VERSION, FSLLM_BUILD_FACTS, mpi_library_version());
}

}  // namespace fsllm
