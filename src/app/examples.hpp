// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace fsllm {

/// Names and texts of configs/examples/*.yaml, as they were when the program was built, by name.
std::vector<std::pair<std::string, std::string>> const& built_in_examples();

}  // namespace fsllm
