// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/algorithm.hpp"

namespace fsllm {
namespace {

/// `times` as many steps as in train, at `lr` (0: as there).
TurnPart part_of(Trained trained, int64_t times, double lr, double weight_decay) {
  return {trained, [=](TrainConfig& train) {
            train.local_update_steps *= times;
            if (lr > 0) train.optimizer.lr = lr;
            train.optimizer.weight_decay = weight_decay;
          }};
}

}  // namespace

/// Collins et al. 2021, "Exploiting shared representations for personalized federated learning", algorithm 1:
/// a client first fits its own parameters (the head h_k, which local_parameters() keeps with it) to the
/// shared ones as they came (the representation φ), then takes its steps on φ with h_k as it is now.
void fedrep(Config& config, std::string const& method, FedAlgorithm& algorithm) {
  auto const local_times = config.get<int64_t>(
      "personalization.epoch_linear", 2,
      "FedRep: training of clients' own parameters, in multiples of train.local_update_steps.", at_least(1));
  auto const shared_times = config.get<int64_t>(
      "personalization.epoch_feature", 1,
      "FedRep: then training of the shared parameters, in multiples of train.local_update_steps.",
      at_least(1));
  double const local_lr =
      config.get("personalization.lr_linear", 0.1,
                 "FedRep: learning rate of clients' own parameters; 0: as train.optimizer.lr.", at_least(0));
  double const shared_lr =
      config.get("personalization.lr_feature", 0.1,
                 "FedRep: learning rate of the shared parameters; 0: as train.optimizer.lr.", at_least(0));
  double const weight_decay =
      config.get("personalization.weight_decay", 0.0,
                 "FedRep: weight decay of both, in place of train.optimizer.weight_decay.", at_least(0));
  if (method != "fedrep") return;
  algorithm.parts = {part_of(Trained::local, local_times, local_lr, weight_decay),
                     part_of(Trained::shared, shared_times, shared_lr, weight_decay)};
}

}  // namespace fsllm
