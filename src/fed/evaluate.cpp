// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/evaluate.hpp"

#include <fmt/core.h>

#include "fsllm/comm/gather.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/train/pair_loss.hpp"

namespace fsllm {
namespace {

/// One loss on its way between ranks.
struct LossOfClient {
  int64_t split, client;
  SplitLoss loss;
};

}  // namespace

SplitLoss split_loss(CausalLM& model, std::string const& split, TokenSplit const& rows, int64_t client,
                     TrainConfig const& config, ReferenceOf const& reference, RankGroup const* group) {
  return rows.pairs ? evaluate_pairs(model, rows, reference(client, split, rows), {config.loss, config.beta},
                                     config.batch)
                    : evaluate_split(model, rows, config.batch, 2048, group);
}

ClientLosses evaluate_clients(CausalLM& model, ClientData& data, ClientConfigs const& configs,
                              std::vector<std::vector<int64_t>> const& by_rank,
                              std::vector<std::string> const& splits, Communicator const& comm,
                              ReferenceOf const& reference, RankGroup const* group) {
  return evaluate_clients(data, by_rank, splits, comm,
                          [&](int64_t client, std::string const& name, TokenSplit const& rows) {
                            return split_loss(model, name, rows, client, configs(client), reference, group);
                          });
}

ClientLosses evaluate_clients(ClientData& data, std::vector<std::vector<int64_t>> const& by_rank,
                              std::vector<std::string> const& splits, Communicator const& comm,
                              ClientLoss const& loss_of) {
  std::vector<LossOfClient> mine;
  for (int64_t const client : by_rank[static_cast<size_t>(comm.rank())]) {
    set_activity(fmt::format("evaluating client {}", client));
    auto const shard = data.shard(client);
    for (size_t i = 0; i < splits.size(); ++i)
      mine.push_back({static_cast<int64_t>(i), client,
                      loss_of(client, splits[i], splits[i] == "val" ? shard->val : shard->test)});
  }
  ClientLosses losses;
  for (auto const& message : all_gather(mine, comm))
    losses[splits[static_cast<size_t>(message.split)]][message.client] = message.loss;
  return losses;
}

SplitLoss total(std::map<int64_t, SplitLoss> const& losses) {
  SplitLoss all;
  for (auto const& [client, loss] : losses) {
    all.sum += loss.sum;
    all.targets += loss.targets;
    all.rows += loss.rows;
    all.pairs += loss.pairs;
    all.wins += loss.wins;
    all.margin += loss.margin;
    all.of_pairs = all.of_pairs || loss.of_pairs;
  }
  return all;
}

}  // namespace fsllm
