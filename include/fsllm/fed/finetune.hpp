// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/train/trainer.hpp"

namespace fsllm {

/// Keys `finetune.*`: what each client does on its training rows to the parameters that it is judged by, each
/// time before it is judged. Nothing of it is kept or sent.
struct FineTuning {
  int64_t steps = 1;
  bool epochs = true;  ///< steps count epochs
  OptimizerConfig optimizer;
  std::vector<std::string> words;  ///< parameters whose name contains one are trained; empty: all
};

/// Empty where finetune.before_eval is off.
std::optional<FineTuning> load_fine_tuning(Config& config);
/// A client's settings for it: batches, accumulation and clipping as in train, the learning rate constant.
TrainConfig tuning_config(FineTuning const& tuning, TrainConfig train);
bool tunes(FineTuning const& tuning, std::string const& parameter);

}  // namespace fsllm
