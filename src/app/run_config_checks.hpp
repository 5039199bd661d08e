// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/app/run_config.hpp"

namespace fsllm {

/// Checks a run's parts against each other; one Error tells all that is wrong.
void check_parts(RunConfig const& run, Config& config);

}  // namespace fsllm
