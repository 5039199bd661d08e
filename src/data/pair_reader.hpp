// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "fsllm/text/sample.hpp"

namespace fsllm {

/// Fills `sample` from a row that preferences are learnt from (prompt, chosen, rejected), and gives "", or
/// why it is bad. The answers differ, and in lists of messages nothing but they. The prompt may stand in
/// `instruction` and `input`; token rows have TRL's `prompt_input_ids`, `chosen_input_ids` and
/// `rejected_input_ids`.
std::string read_pair(nlohmann::json const& row, Sample& sample);

}  // namespace fsllm
