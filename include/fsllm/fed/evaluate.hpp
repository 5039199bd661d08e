// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/fed/client_data.hpp"
#include "fsllm/train/loss.hpp"
#include "fsllm/train/trainer.hpp"

namespace fsllm {

/// The settings of a client, per-client overrides included.
using ClientConfigs = std::function<TrainConfig const&(int64_t client)>;

/// What the reference model makes of the rows of a client's split (row_losses); pairs are judged against it.
using ReferenceOf = std::function<std::vector<double> const&(int64_t client, std::string const& split,
                                                             TokenSplit const& rows)>;

/// The model's loss on one split of a client; a `group` computes it together.
SplitLoss split_loss(CausalLM& model, std::string const& split, TokenSplit const& rows, int64_t client,
                     TrainConfig const& config, ReferenceOf const& reference, RankGroup const* group);

/// Losses of every client: split name ("val", "test") → client → loss.
using ClientLosses = std::map<std::string, std::map<int64_t, SplitLoss>>;

/// Collective: the model's loss on the named splits of each rank's clients, complete on every rank and
/// independent of who computed what. `configs` gives each client's settings. With a `group` its ranks compute
/// each loss together, and `comm` joins ranks of different groups.
ClientLosses evaluate_clients(CausalLM& model, ClientData& data, ClientConfigs const& configs,
                              std::vector<std::vector<int64_t>> const& by_rank,
                              std::vector<std::string> const& splits, Communicator const& comm,
                              ReferenceOf const& reference = {}, RankGroup const* group = nullptr);

/// The same, by another loss of a client on one of its splits.
using ClientLoss = std::function<SplitLoss(int64_t client, std::string const& split, TokenSplit const& rows)>;
ClientLosses evaluate_clients(ClientData& data, std::vector<std::vector<int64_t>> const& by_rank,
                              std::vector<std::string> const& splits, Communicator const& comm,
                              ClientLoss const& loss_of);

/// Mean over clients, weighted by tokens (of pairs by these), added up in client order.
SplitLoss total(std::map<int64_t, SplitLoss> const& losses);

}  // namespace fsllm
