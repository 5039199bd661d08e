// SPDX-License-Identifier: Apache-2.0
#include "rank_work.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "fsllm/comm/gather.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/device_memory.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/fed/plan.hpp"
#include "not_finite.hpp"
#include "participants.hpp"
#include "stop.hpp"

namespace fsllm::detail {

std::vector<std::vector<int64_t>> place_by_cost(Federation const& f, std::vector<int64_t> const& clients) {
  std::vector<double> costs;
  std::vector<std::vector<int>> allowed;
  for (int64_t const client : clients) {
    auto const& train = f.data.summary(client).train;
    double const rows = static_cast<double>(std::max<int64_t>(1, train.rows));
    auto const steps = planned_steps(f.train_config(client), std::max<int64_t>(1, train.rows));
    costs.push_back(static_cast<double>(steps) * static_cast<double>(train.tokens) / rows);
    allowed.push_back(f.data.ranks_of(client));
  }
  int const ranks = f.collective.communicator().size();
  int const first = !f.config.server_trains && ranks > 1 ? 1 : 0;
  return place_clients(clients, costs, ranks, first, allowed);
}

Participants::Participants(Federation const& f)
    : all(participants(f.config, f.data)),
      trained(training_clients(f.config, all)),
      unseen(unseen_clients(f.config, all)),
      owned(place_by_cost(f, all)),
      splits(splits_with_rows(f.config, f.data, all)) {
  if (!unseen.empty()) log_info("clients {} are evaluated apart and never train", fmt::join(unseen, ", "));
}

RankWork::RankWork(Federation& federation, Participants const& who)
    : f_(federation),
      who_(who),
      comm_(federation.collective.communicator()),
      algorithm_(federation.config.algorithm),
      states_(federation.directory.root) {
  for (auto const& [name, tensor] : f_.parameters)
    if (algorithm_.is_local(name) || algorithm_.personal_training)
      first_.emplace(name, tensor.detach().cpu().clone());
}

RoundPlan RankWork::plan(int64_t round) const {
  auto const chosen = algorithm_.samples ? sample_clients(f_.config, who_.trained, round) : who_.trained;
  auto const weight_of = [&](int64_t client) {
    return f_.config.ignore_weight ? 1.0 : static_cast<double>(f_.data.summary(client).train.rows);
  };
  double all_weight = 0;
  for (int64_t const client : chosen) all_weight += weight_of(client);
  RoundPlan plan{round, static_cast<int64_t>(who_.trained.size()), {}};
  for (int64_t const client : chosen)
    plan.cohorts.push_back({{client, round, weight_of(client) / all_weight}});
  return plan;
}

/// Clients with a state of their own train where it is.
std::vector<ClientTask> RankWork::own_tasks(RoundPlan const& plan) const {
  std::map<int64_t, ClientTask> all;
  std::vector<int64_t> clients;
  for (auto const& task : tasks(plan)) {
    all.emplace(task.client, task);
    clients.push_back(task.client);
  }
  auto const placed = f_.config.has_client_states() ? who_.owned : place_by_cost(f_, clients);
  std::vector<ClientTask> mine;
  for (int64_t const client : placed[static_cast<size_t>(comm_.rank())])
    if (auto const task = all.find(client); task != all.end()) mine.push_back(task->second);
  return mine;
}

ClientState RankWork::state_of(int64_t client, ServerState const& server) {
  if (!f_.config.has_client_states()) return {};
  if (auto const kept = states_.find(client)) return *kept;
  auto parameters = first_;
  parameters.insert(server.weights.begin(), server.weights.end());
  return {algorithm_.client_state ? algorithm_.client_state(parameters) : TensorMap{}, {}};
}

std::vector<ClientStateFile> RankWork::state_files(int64_t round) const {
  auto all = all_gather(states_.files(round), comm_);
  std::sort(all.begin(), all.end(), [](auto const& a, auto const& b) { return a.client < b.client; });
  return all;
}

void RankWork::restore_states(std::vector<ClientStateFile> const& all) {
  auto const& own = who_.owned[static_cast<size_t>(comm_.rank())];
  std::vector<ClientStateFile> mine;
  for (auto const& file : all)
    if (std::find(own.begin(), own.end(), file.client) != own.end()) mine.push_back(file);
  states_.restore(mine);
}

void RankWork::end_turn() {
  if (!f_.rest_on_host) return;
  for (auto const& [name, tensor] : f_.parameters) tensor.mutable_grad().reset();
  release_unused_device_memory(device());
}

bool RankWork::moves(TurnPart const& part, std::string const& parameter, int64_t round) const {
  if (algorithm_.rests && algorithm_.rests(parameter, round)) return false;
  return part.trained == Trained::all || algorithm_.is_local(parameter) == (part.trained == Trained::local);
}

TrainConfig RankWork::config_of(TurnPart const& part, int64_t client) const {
  auto config = f_.train_config(client);
  if (part.adjust) part.adjust(config);
  return config;
}

int64_t RankWork::steps_of_turn(int64_t client) const {
  auto parts = algorithm_.parts;
  if (algorithm_.personal_training) parts.push_back(algorithm_.personal_training->part);
  int64_t steps = 0;
  for (auto const& part : parts)
    steps += planned_steps(config_of(part, client), f_.data.summary(client).train.rows);
  return steps;
}

/// All trainings from turn.start; what follows the last one goes into `turn`. Returns the optimiser's state.
TensorMap RankWork::take_steps(ClientTurn& turn, GradientHooks const& gradients,
                               std::vector<TurnPart> const& parts, TensorMap optimizer, Progress& progress) {
  copy_values(f_.parameters, turn.start);
  std::vector<GradientHook> hooks;
  for (auto const& make : gradients) hooks.push_back(make(turn));
  auto const hook = [&](TensorMap const& parameters) {
    for (auto const& each : hooks) each(parameters);
  };
  for (auto const& part : parts) optimizer = take_part(turn, hook, part, optimizer, progress);
  turn.update = subtract(f_.parameters, turn.start);
  return optimizer;
}

/// The steps of one training. Returns the optimiser's state where it outlives the training.
TensorMap RankWork::take_part(ClientTurn& turn, GradientHook const& hook, TurnPart const& part,
                              TensorMap const& optimizer, Progress& progress) {
  auto const client = turn.task.client;
  auto const config = config_of(part, client);
  set_activity(fmt::format("reading the shard of client {}", client));
  auto const shard = f_.data.shard(client);
  auto const steps = planned_steps(config, shard->train.rows());
  LocalTraining training(f_.model, f_.parameters, shard->train, config,
                         {f_.config.seed, client, turn.plan.round, f_.config.rounds},
                         [&](TensorMap const& parameters) {
                           hook(parameters);
                           // Without a gradient no optimiser moves a parameter, nor its moments.
                           for (auto const& [name, tensor] : parameters)
                             if (!moves(part, name, turn.plan.round)) tensor.mutable_grad().reset();
                         });
  training.load_state({{}, optimizer});
  for (int64_t next = 1; !training.done(); ++next) {
    set_activity(fmt::format("training client {}, step {} of {}", client, next, steps));
    auto const step = training.step();
    if (first_step_ == 0) first_step_ = seconds_since_process_start();
    stop_where_asked();
    if (step.taken) progress.advance(1, fmt::format("client {}, loss {:.3f}", client, step.loss));
  }
  check_training(f_.model, f_.parameters, training.result(),
                 fmt::format("client {}, round {}", client, turn.plan.round + 1));
  turn.result += training.result();
  return f_.config.keep_optimizer ? training.state().optimizer : TensorMap{};
}

/// The state that a client keeps of its own model.
void RankWork::train_personal(ClientTurn const& turn, Progress& progress) {
  auto const& [gradients, part] = *algorithm_.personal_training;
  auto const start = turn.state;
  ClientTurn own{turn.plan, turn.task, turn.server, start, turn.parameters, turn.state, {}, {}, turn.lr};
  take_steps(own, gradients, {part}, {}, progress);
  turn.state = clone(f_.parameters);
}

ClientReport RankWork::train_task(RoundPlan const& plan, ClientTask const& task, ServerState const& server,
                                  Aggregation& aggregation, Progress& progress) {
  auto kept = state_of(task.client, server);
  auto state = moved(kept.own, device());
  auto const start = moved(algorithm_.start(server, state), device());
  double const lr = f_.train_config(task.client).optimizer.lr;
  ClientTurn turn{plan, task, server, start, f_.parameters, state, {}, {}, lr};
  kept.optimizer = take_steps(turn, algorithm_.gradients, algorithm_.parts, kept.optimizer, progress);
  auto const message = message_of(algorithm_, turn);
  ClientReport const report{task.client, turn.result, l2_norm(turn.update)};
  if (algorithm_.kind != Kind::none) aggregation.add(message, task);
  if (algorithm_.personal_training) train_personal(turn, progress);
  if (f_.config.has_client_states()) states_.put(task.client, plan.round + 1, {turn.state, kept.optimizer});
  return report;
}

std::vector<ClientReport> RankWork::train(RoundPlan const& plan, ServerState const& server,
                                          Aggregation& aggregation) {
  auto const mine = own_tasks(plan);
  int64_t steps = 0;
  for (auto const& task : mine) steps += steps_of_turn(task.client);
  std::vector<ClientReport> reports;
  {
    Progress progress(fmt::format("round {}/{}", plan.round + 1, f_.config.rounds), steps, "steps",
                      comm_.rank() == 0);
    try {
      for (auto const& task : mine) {
        reports.push_back(train_task(plan, task, server, aggregation, progress));
        end_turn();
      }
    } catch (Interrupted const&) {
      reports.clear();
    }
  }
  stopped_ = comm_.max(interrupted() ? 1 : 0) != 0;
  return gather_reports(reports, comm_);
}

}  // namespace fsllm::detail
