// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/app/run_config.hpp"

namespace fsllm {

/// Names to Config::leave_out() what nothing reads as this run is set: sections that are off, and arguments
/// of other methods than the chosen ones.
void leave_out_unread(RunConfig const& run, Config& config);

}  // namespace fsllm
