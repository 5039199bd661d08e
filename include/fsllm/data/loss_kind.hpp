// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "fsllm/core/config.hpp"

namespace fsllm {

/// What training lowers, and so what a row is: causal_lm learns answers, the others from pairs of a better
/// and a worse one.
enum class LossKind {
  causal_lm,  ///< cross-entropy a scored token
  dpo,        ///< Rafailov et al. 2023, equation 7
  reward      ///< Bradley and Terry's model of log-probabilities a token, against those of the reference
};

/// Keys `train.loss` and FS-LLM's `trainer.type`, which has the names of FedBiOT's trainers.
LossKind load_loss(Config& config);

/// Its name in the configuration.
std::string name_of(LossKind loss);
inline bool learns_from_pairs(LossKind loss) {
  return loss != LossKind::causal_lm;
}

}  // namespace fsllm
