// SPDX-License-Identifier: Apache-2.0
// How clients are judged, and what follows from it.
#include <fmt/core.h>

#include <functional>

#include "fsllm/comm/stall.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/fed/evaluate.hpp"
#include "fsllm/io/files.hpp"
#include "not_finite.hpp"
#include "run.hpp"

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
  LocalTraining training(
      f_.model, f_.parameters, shard->train, config, {f_.config.seed, client, round, f_.config.rounds},
      [&](TensorMap const& parameters) {
        for (auto const& [name, tensor] : parameters)
          if (!tunes(tuning, name)) tensor.mutable_grad().reset();
      },
      references_(client, "train", shard->train), f_.group);
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
  if (algorithm_.components > 1)
    return evaluate_clients(f_.data, who_.owned, who_.splits, comm_,
                            [&](int64_t client, std::string const&, TokenSplit const& rows) {
                              return mixture_loss(server, client, rows);
                            });
  if (f_.judged_model) {
    std::vector<std::vector<int64_t>> at_server(who_.owned.size());
    at_server.front() = who_.all;
    auto& model = comm_.rank() == 0 ? f_.judged_model(server.weights) : f_.model;
    return evaluate_clients(model, f_.data, f_.train_config, at_server, who_.splits, comm_,
                            std::ref(references_));
  }
  if (!algorithm_.personal && !f_.config.finetune) {
    set_parameters(server.weights);
    return evaluate_clients(f_.model, f_.data, f_.train_config, who_.owned, who_.splits, comm_,
                            std::ref(references_), f_.group);
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
      set_parameters(own_parameters(algorithm_, server, state_of(mine[turn], server).own));
      if (f_.config.finetune) fine_tune(mine[turn], round);
    }
    for (auto const& [split, part] : evaluate_clients(f_.model, f_.data, f_.train_config, one, who_.splits,
                                                      comm_, std::ref(references_), f_.group))
      losses[split].insert(part.begin(), part.end());
  }
  return losses;
}

/// Evaluates, and records the loss that decides.
void Run::judge(RoundReport& report) {
  report.losses = work_.evaluate(state_.server, report.round);
  report.judged = f_.judged;
  note_losses(config_, report.losses, state_.schedule);
  auto const split = config_.selection.best_key.starts_with("val") ? "val" : "test";
  auto const found = report.losses.find(split);
  if (found == report.losses.end()) return;
  auto const loss = total(found->second);
  if (loss.terms() == 0) return;
  report.best = state_.selection.observe(loss.sum / static_cast<double>(loss.terms()));
  if (!report.best || algorithm_.personal) return;
  state_.best_round = report.round;
  if (!server()) return;
  state_.best = clone(state_.server.weights);
  if (f_.rest_on_host) state_.best = moved(state_.best, at::kCPU);
  save_as("best", state_.best, {report.round, to_json(report.losses)});
}

bool Run::is_over() const {
  return state_.done >= config_.rounds || state_.selection.stop();
}

/// Collective: puts tasks to the global model where they are due after this round; false where a signal has
/// stopped that. Comes behind the round's checkpoint, so that a stop costs no training.
bool Run::examine() {
  bool const due = is_over() || (f_.examine_every > 0 && state_.done % f_.examine_every == 0);
  if (!f_.examine || !due || examined_ == state_.done) return true;
  PhaseClock clock;
  work_.take(state_.server);
  auto const tasks = f_.examine(state_.server.weights, state_.done);
  if (!tasks) return false;
  clock.lap("tasks");
  examined_ = state_.done;
  tasks_ = *tasks;
  if (writes())
    write_event({{"event", "tasks"}, {"round", state_.done}, {"tasks", tasks_}, {"seconds", clock.seconds()}},
                unix_time());
  return true;
}

/// Collective: judges the mean of global weights, and leaves it beside the result.
void Run::judge_average() {
  if (algorithm_.averages_from == 0) return;
  auto const average = server() ? state_.server_step->average() : WeightAverage{};
  auto const models = comm_.max(average.models);
  if (models == 0) {
    log_warning("the run ended after {} rounds, before the first whose weights go into the mean ({})",
                state_.done, algorithm_.averages_from);
    return;
  }
  auto mean = state_.server;
  mean.weights = clone(server() ? average.weights : mean.weights);
  f_.collective.broadcast(mean.weights, 0);
  auto const losses = who_.splits.empty() ? ClientLosses{} : work_.evaluate(mean, state_.done);
  if (!server()) return;
  save_as(f_.directory.average().filename().string(), mean.weights, {state_.done, to_json(losses)});
  average_ = to_json(losses);
  average_["models"] = models;
  if (writes() && !losses.empty())
    append_to_file(f_.directory.eval_results(), average_result_line(losses, state_.done));
}

}  // namespace fsllm::detail
