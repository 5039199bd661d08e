// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "fsllm/report/run_data.hpp"

namespace fsllm::detail {

/// What both the page and the terminal show.
struct Table {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  std::string note = {};
  size_t texts = 0;  ///< the first columns, which are no numbers
};

std::string bytes_text(double bytes);
std::string loss_text(double loss);  ///< six decimals
std::string time_text(double seconds_since_1970);

/// Name and value of what a reader asks first.
std::vector<std::pair<std::string, std::string>> summary_of(RunData const& run);
/// A row a round, with every loss.
Table rounds_table(RunData const& run);
/// A row a client; of very many, those with the largest held-out loss.
Table clients_table(RunData const& run);
Table ranks_table(RunData const& run);
/// Seconds of each phase, over all rounds and a round.
Table phases_table(RunData const& run);
/// No rows where the run had no tasks.
Table tasks_table(RunData const& run);
Table config_table(RunData const& run);
Table environment_table(RunData const& run);

}  // namespace fsllm::detail
