// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "fsllm/text/dataset.hpp"

namespace fsllm {

/// Fills `sample` from one JSON object. Gives "", or why the row is bad ("field 'output' is missing ...").
std::string read_sample(nlohmann::json const& row, DataFormat const& format, DataConfig const& config,
                        Sample& sample);

}  // namespace fsllm
