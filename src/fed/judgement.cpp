// SPDX-License-Identifier: Apache-2.0
// How the clients of a rank are judged.
#include <fmt/core.h>

#include "fsllm/comm/stall.hpp"
#include "fsllm/fed/evaluate.hpp"
#include "not_finite.hpp"
#include "rank_work.hpp"

namespace fsllm::detail {

ClientLosses RankWork::evaluate(ServerState const& server, int64_t round) {
  auto losses = evaluate_all(server, round);
  for (auto const& split : who_.splits)
    for (int64_t const client : who_.unseen)
      if (auto entry = losses[split].extract(client)) losses[split + "_unseen"].insert(std::move(entry));
  return losses;
}

/// What a client does to the live parameters before it is judged.
void RankWork::fine_tune(int64_t client, int64_t round) {
  auto const& tuning = *f_.config.finetune;
  auto const shard = f_.data.shard(client);
  if (shard->train.rows() == 0) return;
  auto const config = tuning_config(tuning, f_.train_config(client));
  LocalTraining training(f_.model, f_.parameters, shard->train, config,
                         {f_.config.seed, client, round, f_.config.rounds}, [&](TensorMap const& parameters) {
                           for (auto const& [name, tensor] : parameters)
                             if (!tunes(tuning, name)) tensor.mutable_grad().reset();
                         });
  while (!training.done()) {
    set_activity(fmt::format("fine-tuning client {}, step {}", client, training.result().steps + 1));
    training.step();
  }
  check_training(f_.model, f_.parameters, training.result(),
                 fmt::format("client {}, fine-tuned after round {}", client, round),
                 tuning.words.empty() ? "finetune.optimizer.lr" : "finetune.lr_linear");
  end_turn();
}

ClientLosses RankWork::evaluate_all(ServerState const& server, int64_t round) {
  if (!algorithm_.personal && !f_.config.finetune) {
    copy_values(f_.parameters, server.weights);
    return evaluate_clients(f_.model, f_.data, f_.train_config, who_.owned, who_.splits, comm_);
  }
  auto const& owned = who_.owned;
  std::vector<std::vector<int64_t>> one(owned.size());
  ClientLosses losses;
  for (size_t turn = 0; turn < who_.all.size(); ++turn) {
    // Each client is judged with its own parameters; ranks whose clients are done take part with none.
    auto const& mine = owned[static_cast<size_t>(comm_.rank())];
    for (size_t rank = 0; rank < owned.size(); ++rank)
      one[rank] =
          turn < owned[rank].size() ? std::vector<int64_t>{owned[rank][turn]} : std::vector<int64_t>{};
    if (turn < mine.size()) {
      copy_values(f_.parameters, own_parameters(algorithm_, server, state_of(mine[turn], server).own));
      if (f_.config.finetune) fine_tune(mine[turn], round);
    }
    for (auto const& [split, part] :
         evaluate_clients(f_.model, f_.data, f_.train_config, one, who_.splits, comm_))
      losses[split].insert(part.begin(), part.end());
  }
  return losses;
}

}  // namespace fsllm::detail
