// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/data/dataset.hpp"

namespace fsllm {

/// Fills `sample` from one JSON object. Gives "", or why the row is bad ("field 'output' is missing ...").
std::string read_sample(nlohmann::json const& row, DataFormat const& format, DataConfig const& config,
                        Sample& sample);

/// ". Write data.columns: {instruction: question, output: answer}": which fields of this row of the user's
/// own file may be those that are missing; "" where none comes into question.
std::string columns_to_write(nlohmann::json const& row, DataConfig const& config);

/// The names of all fields that read_sample may look at.
std::vector<std::string> sample_fields(DataFormat const& format, DataConfig const& config);

}  // namespace fsllm
