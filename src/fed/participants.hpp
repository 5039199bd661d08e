// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "fsllm/fed/client_data.hpp"
#include "fsllm/fed/config.hpp"

namespace fsllm {

/// The clients that take part: all, or the one that federate.client_idx_for_local_train chooses.
std::vector<int64_t> participants(FedConfig const& config, ClientData const& data);

/// The splits of eval.split that hold at least one row; says so when there is none.
std::vector<std::string> splits_with_rows(FedConfig const& config, ClientData const& data,
                                          std::vector<int64_t> const& clients);

}  // namespace fsllm
