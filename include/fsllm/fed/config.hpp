// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/fed/algorithm.hpp"
#include "fsllm/fed/asynchronous.hpp"
#include "fsllm/fed/finetune.hpp"
#include "fsllm/fed/sampler.hpp"

namespace fsllm {

/// Keys `early_stop.*`, `eval.*`: when to evaluate, what counts as best, when to stop.
struct SelectionConfig {
  int64_t eval_every = 1;           ///< rounds
  std::vector<std::string> splits;  ///< "val", "test"
  std::string best_key;             ///< "val_loss" or "test_loss"
  int64_t patience = 5;             ///< evaluations without improvement; 0: never stop early
  double delta = 0;
  bool improve_on_mean = false;
};

/// Keys `federate.*`, `checkpoint.*`, `hpc.*` of the round loop.
struct FedConfig {
  std::string method;              ///< row of the algorithm table
  FedAlgorithm algorithm;          ///< what it means
  int64_t client_num = 0;          ///< 0: as many as there are shards
  int64_t sample_client_num = -1;  ///< clients a round; -1: all
  double sample_client_rate = -1;
  SamplerConfig sampler;
  AsynConfig asyn;
  double unseen_clients_rate = 0;  ///< share of the clients that are evaluated, but never train
  int64_t rounds = 50;
  bool ignore_weight = false;
  bool keep_optimizer = false;  ///< clients' optimisers go on from round to round
  int64_t only_client = 0;      ///< federate.client_idx_for_local_train or distribute.data_idx; 0: all
  std::string reduce;           ///< exact, native, auto
  int64_t fixed_point_bits = 48;
  int64_t clients_per_pass = 1;  ///< of a cohort
  bool server_trains = true;
  int64_t checkpoint_every = 1, keep_last = 2;
  SelectionConfig selection;
  std::optional<FineTuning> finetune;  ///< before clients are judged
  uint64_t seed = 0;

  /// Do clients have a state of their own that outlives their turns?
  bool has_client_states() const { return algorithm.client_state || keep_optimizer; }
};
FedConfig load_fed_config(Config& config);

/// Where clients train by MeZO (train.optimizer.type): they send a slope and a rate a step, from which the
/// server makes their mean update. What needs gradients, or the updates themselves, is an Error.
void zeroth_order(Config const& config, FedConfig& fed);

}  // namespace fsllm
