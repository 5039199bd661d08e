// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fsllm {

/// What the user typed after `fsllm_hpc`.
struct CommandLine {
  std::string cfg, client_cfg;
  std::vector<std::pair<std::string, std::string>> overrides;  ///< KEY, VALUE
  bool check = false, print_config = false, print_schema = false, print_markdown = false, version = false,
       help = false, overwrite = false;
  std::optional<std::string> describe;  ///< filter
  std::optional<std::string> resume;    ///< run directory; "" for the one of the configuration
  /// Asks for a text instead of a run.
  bool informs() const { return version || help || print_schema || print_markdown || describe; }
};

/// Errors name the argument. `KEY VALUE` and `KEY=VALUE` may be mixed.
CommandLine parse_command_line(int argc, char const* const* argv);
std::string help_text();
std::string version_text();

}  // namespace fsllm
