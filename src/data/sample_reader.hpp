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

/// The names of all fields that read_sample may look at.
std::vector<std::string> sample_fields(DataFormat const& format, DataConfig const& config);

}  // namespace fsllm
