// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/train/trainer.hpp"

namespace fsllm {

/// The order in which a client's rows come in a round.
BatchOrder order_of(TrainConfig const& config, int64_t rows, ClientRound const& which,
                    std::vector<int64_t> lengths = {});
/// Batches of a client in a round.
int64_t planned_batches(TrainConfig const& config, int64_t rows);

}  // namespace fsllm
