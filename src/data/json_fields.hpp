// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace fsllm {

/// "field 'output' is missing (the row has: ...)".
std::string missing_field(nlohmann::json const& row, std::string const& name);
/// A text field that must be there: "", or why it is not.
std::string read_text(nlohmann::json const& row, std::string const& name, std::string& text);

}  // namespace fsllm
