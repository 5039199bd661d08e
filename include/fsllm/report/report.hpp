// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/report/run_data.hpp"

namespace fsllm {

/// One page that needs no other file and loads nothing: summary, curves of one point a round, tables of
/// rounds, clients and ranks, configuration and environment.
std::string report_html(RunData const& run);
/// The same facts for a terminal; long tables are cut in their middle.
std::string report_text(RunData const& run);
/// The same as JSON: the summary as texts, and the tables' numbers.
nlohmann::ordered_json report_json(RunData const& run);

/// Several runs beside each other: losses by round, and where their configurations differ.
std::string comparison_html(std::vector<RunData> const& runs);
std::string comparison_text(std::vector<RunData> const& runs);

}  // namespace fsllm
