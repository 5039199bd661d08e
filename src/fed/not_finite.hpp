// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "fsllm/fed/report.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// What a training `who`, whose learning rate is the key `rate`, did to `parameters` must be finite. Where
/// steps were skipped the model's weights are looked at too: no learning rate mends those.
void check_training(CausalLM& model, TensorMap const& parameters, TrainResult const& result,
                    std::string const& who, std::string const& rate = "train.optimizer.lr");

/// A round without a step teaches nothing, and neither would the next; unless gradients overflowed under loss
/// scales that `go_on` from where they are.
void check_steps(std::vector<ClientReport> const& clients, int64_t round, bool go_on);

/// Before training the losses depend on the model and the adapter that training starts from.
void check_first_losses(ClientLosses const& losses, CausalLM& model);

}  // namespace fsllm
