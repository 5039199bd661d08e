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
#include "real_time.hpp"
#include "stop.hpp"

namespace fsllm::detail {

namespace {

/// Tokens that a client trains on in one turn.
double planned_tokens(Federation const& f, int64_t client, TrainConfig const& config) {
  auto const& train = f.data.summary(client).train;
  auto const rows = std::max<int64_t>(1, train.rows);
  auto const steps = planned_steps(config, rows);
  return static_cast<double>(steps) * static_cast<double>(train.tokens) / static_cast<double>(rows);
}
double planned_tokens(Federation const& f, int64_t client) {
  return planned_tokens(f, client, f.train_config(client));
}

double virtual_seconds(Federation const& f, int64_t client) {
  auto const& given = f.config.asyn.response_times;
  if (given.empty()) return planned_tokens(f, client) / 1000;
  return given[static_cast<size_t>(client - 1) % given.size()];
}

std::vector<TrainingClient> known_clients(Federation const& f, std::vector<int64_t> const& clients) {
  std::vector<TrainingClient> known;
  for (int64_t const id : clients) {
    auto const rows = f.data.summary(id).train.rows;
    known.push_back(
        {id, static_cast<double>(rows), virtual_seconds(f, id), planned_steps(f.train_config(id), rows)});
  }
  return known;
}

}  // namespace

std::vector<std::vector<int64_t>> place_by_cost(Federation const& f, std::vector<int64_t> const& clients,
                                                std::vector<double> const& costs) {
  std::vector<std::vector<int>> allowed;
  for (int64_t const client : clients) allowed.push_back(f.data.ranks_of(client));
  int const ranks = f.collective.communicator().size();
  int const first = !f.config.server_trains && ranks > 1 ? 1 : 0;
  return place_clients(clients, costs, ranks, first, allowed);
}

namespace {

/// By the tokens that they train on.
std::vector<std::vector<int64_t>> place_by_tokens(Federation const& f, std::vector<int64_t> const& clients) {
  std::vector<double> costs;
  for (int64_t const client : clients) costs.push_back(planned_tokens(f, client));
  return place_by_cost(f, clients, costs);
}

}  // namespace

Participants::Participants(Federation const& f)
    : all(participants(f.config, f.data)),
      trained(known_clients(f, training_clients(f.config, all))),
      unseen(unseen_clients(f.config, all)),
      owned(place_by_tokens(f, all)),
      splits(splits_with_rows(f.config, f.data, all)) {
  if (!unseen.empty()) log_info("clients {} are evaluated apart and never train", fmt::join(unseen, ", "));
}

RankWork::RankWork(Federation& federation, Participants const& who)
    : f_(federation),
      who_(who),
      comm_(federation.collective.communicator()),
      algorithm_(federation.config.algorithm),
      states_(federation.directory.root, federation.group ? federation.group->rank() : 0),
      references_(federation) {
  for (auto const& [name, tensor] : f_.parameters)
    if (algorithm_.is_local(name) || algorithm_.personal_training)
      first_.emplace(name, tensor.detach().cpu().clone());
  if (f_.config.asyn.use && f_.config.asyn.real)
    real_time_ = std::make_unique<RealTime>(
        f_, who_.trained,
        [this](ClientTurn& turn, ClientShard const& shard) {
          set_parameters(turn.start);
          return training_of(turn, f_.parameters, hook_of(turn, algorithm_.gradients),
                             algorithm_.parts.front(), f_.train_config(turn.task.client), shard);
        },
        [this](LocalTraining const& training, ClientTurn& turn) {
          note_result(turn, training.result(), training.moves());
        });
}

RankWork::~RankWork() = default;

void RankWork::set_parameters(TensorMap const& values) {
  copy_values(f_.parameters, values);
  if (f_.group) f_.group->note_change();
}

/// Between two steps: the ranks of a group stop after the same one.
void RankWork::stop_where_asked() const {
  if (f_.group == nullptr) return fsllm::stop_where_asked();
  check_launcher();
  if (f_.group->any(interrupted())) throw Interrupted();
}

RoundPlan RankWork::plan(int64_t round, ServerState const& server, Schedule& schedule) {
  if (!real_time_) {
    auto plan = plan_round(f_.config, who_.trained, round, schedule);
    draw_settings(plan, server);
    return plan;
  }
  auto plan = real_time_->await(round, server);
  weigh(f_.config, who_.trained, plan);
  return plan;
}

/// Clients with a state of their own train where it is.
std::vector<std::vector<ClientTask>> RankWork::own_cohorts(RoundPlan const& plan) const {
  std::map<int64_t, std::vector<std::vector<ClientTask>>> by_first;
  std::map<int64_t, double> costs;
  for (auto const& cohort : plan.cohorts) {
    auto const first = cohort.front().client;
    by_first[first].push_back(cohort);
    for (auto const& task : cohort) costs[first] += planned_tokens(f_, task.client, config_of(task));
  }
  std::vector<int64_t> first;
  std::vector<double> all_costs;
  for (auto const& [client, cost] : costs) {
    first.push_back(client);
    all_costs.push_back(cost);
  }
  auto const placed = f_.config.has_client_states() ? who_.owned : place_by_cost(f_, first, all_costs);
  std::vector<std::vector<ClientTask>> mine;
  for (int64_t const client : placed[static_cast<size_t>(comm_.rank())])
    if (auto const cohorts = by_first.find(client); cohorts != by_first.end())
      mine.insert(mine.end(), cohorts->second.begin(), cohorts->second.end());
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

/// What a turn does to its gradients.
GradientHook RankWork::hook_of(ClientTurn const& turn, GradientHooks const& gradients) const {
  std::vector<GradientHook> hooks;
  for (auto const& make : gradients) hooks.push_back(make(turn));
  return [hooks](TensorMap const& parameters) {
    for (auto const& hook : hooks) hook(parameters);
  };
}

/// One training of a turn on `parameters`, which are live; `config` must outlive it.
std::unique_ptr<LocalTraining> RankWork::training_of(ClientTurn const& turn, TensorMap& parameters,
                                                     GradientHook const& hook, TurnPart const& part,
                                                     TrainConfig const& config, ClientShard const& shard) {
  return std::make_unique<LocalTraining>(
      f_.model, parameters, shard.train, config,
      ClientRound{f_.config.seed, turn.task.client, turn.task.version, f_.config.rounds},
      [this, hook, part, round = turn.plan.round](TensorMap const& trained) {
        hook(trained);
        // Without a gradient no optimiser moves a parameter, nor its moments.
        for (auto const& [name, tensor] : trained)
          if (!moves(part, name, round)) tensor.mutable_grad().reset();
      },
      references_(turn.task.client, "train", shard.train), f_.group);
}

/// What follows the last step of a training goes into `turn`.
void RankWork::note_result(ClientTurn& turn, TrainResult const& result,
                           std::vector<ZerothOrderMove> moves) const {
  check_training(f_.model, turn.parameters, result,
                 fmt::format("client {}, round {}", turn.task.client, turn.plan.round + 1));
  turn.result += result;
  turn.moves = std::move(moves);
  turn.update = subtract(turn.parameters, turn.start);
}

/// All trainings from turn.start; what follows the last one goes into `turn`. Returns the optimiser's state.
TensorMap RankWork::take_steps(ClientTurn& turn, GradientHooks const& gradients,
                               std::vector<TurnPart> const& parts, TensorMap optimizer, Progress& progress) {
  set_parameters(turn.start);
  auto const hook = hook_of(turn, gradients);
  for (auto const& part : parts) optimizer = take_part(turn, hook, part, optimizer, progress);
  return optimizer;
}

/// The steps of one training. Returns the optimiser's state where it outlives the training.
TensorMap RankWork::take_part(ClientTurn& turn, GradientHook const& hook, TurnPart const& part,
                              TensorMap const& optimizer, Progress& progress,
                              std::vector<double> row_weights) {
  auto const client = turn.task.client;
  auto const config = config_of(part, turn.task);
  set_activity(fmt::format("reading the shard of client {}", client));
  auto const shard = f_.data.shard(client);
  auto const steps = planned_steps(config, shard->train.samples());
  auto training = training_of(turn, f_.parameters, hook, part, config, *shard);
  if (auto const earlier = take_resting(turn.task); earlier) {
    set_parameters(earlier->parameters);
    training->load_state(earlier->training);
  } else {
    training->load_state({{}, optimizer});
  }
  training->weigh_rows(std::move(row_weights));
  for (int64_t next = 1; !training->done(); ++next) {
    set_activity(fmt::format("training client {}, step {} of {}", client, next, steps));
    auto const step = training->step();
    if (first_step_ == 0) first_step_ = seconds_since_process_start();
    if (interrupted()) rest(turn, *training);
    stop_where_asked();
    if (step.taken) progress.advance(1, fmt::format("client {}, loss {:.3f}", client, step.loss));
  }
  auto kept = f_.config.keep_optimizer ? training->state().optimizer : TensorMap{};
  auto const result = training->result();
  auto moves = training->moves();
  training.reset();  // its memory is what the update takes
  note_result(turn, result, std::move(moves));
  return kept;
}

/// The state that a client keeps of its own model.
void RankWork::train_personal(ClientTurn const& turn, Progress& progress) {
  auto const& [gradients, part] = *algorithm_.personal_training;
  auto const start = turn.state;
  ClientTurn own{turn.plan, turn.task, turn.server, start, turn.parameters, turn.state, {}, {}, turn.lr};
  take_steps(own, gradients, {part}, {}, progress);
  turn.state = clone(f_.parameters);
}

TensorMap RankWork::start_of(int64_t client, ServerState const& server, TensorMap const& state) const {
  auto start = algorithm_.start(server, state);
  return algorithm_.fit ? algorithm_.fit(std::move(start), client) : start;
}

/// The scale of a client whose LoRA is not quite the run's; 0: that of the run.
void RankWork::scale_lora(int64_t client) const {
  if (f_.lora.clients.empty()) return;
  auto const own = f_.lora.clients.find(client);
  f_.scale_lora(own == f_.lora.clients.end() ? 1 : own->second.scale);
}

ClientReport RankWork::train_task(RoundPlan const& plan, ClientTask const& task, ServerState const& server,
                                  Aggregation& aggregation, Progress& progress) {
  if (algorithm_.components > 1) return train_mixture(plan, task, server, aggregation, progress);
  auto kept = state_of(task.client, server);
  auto state = moved(kept.own, device());
  auto const start = moved(start_of(task.client, server, state), device());
  scale_lora(task.client);
  ClientTurn turn{plan, task, server, start, f_.parameters, state, {}, {}, config_of(task).optimizer.lr};
  bool const by_change = algorithm_.judges_turns == FedAlgorithm::JudgesTurns::by_change;
  if (by_change) {
    set_parameters(start);
    turn.validation = -validation_loss(task);
  }
  kept.optimizer = take_steps(turn, algorithm_.gradients, algorithm_.parts, kept.optimizer, progress);
  if (algorithm_.judges_turns != FedAlgorithm::JudgesTurns::not_at_all)
    turn.validation += validation_loss(task);
  scale_lora(0);
  auto const message = message_of(algorithm_, turn);
  double const own = l2_norm(turn.update), norm = f_.group ? f_.group->norm(own) : own;
  ClientReport const report{task.client, turn.result, norm, task.version};
  if (algorithm_.kind != Kind::none) aggregation.add(message, task);
  if (algorithm_.personal_training) train_personal(turn, progress);
  if (f_.config.has_client_states()) states_.put(task.client, plan.round + 1, {turn.state, kept.optimizer});
  return report;
}

void RankWork::note_own(std::vector<ClientReport> const& mine, PhaseClock& clock) {
  clock.lap("train");
  own_ = {};
  own_.train = clock.seconds().at("train");
  own_.turns = std::ssize(mine);
  for (auto const& report : mine) own_.tokens += report.result.tokens;
}

std::vector<ClientReport> RankWork::train(RoundPlan const& plan, VersionOf const& version_of,
                                          Aggregation& aggregation) {
  PhaseClock clock;
  if (real_time_) {
    auto const reports = real_time_->deliver(plan, aggregation);
    note_own(reports, clock);
    stopped_ = comm_.max(plan.cohorts.empty() ? 1 : 0) != 0;
    return gather_reports(reports, comm_);
  }
  auto const mine = remaining(plan);
  std::vector<ClientReport> reports;
  if (earlier_)
    for (auto const& work : earlier_->work) {
      reports.insert(reports.end(), work.reports.begin(), work.reports.end());
      aggregation.add_state(work.sums);
    }
  {
    int64_t all_steps = 0;  // of all ranks
    for (auto const& task : tasks(plan)) all_steps += steps_of_turn(task);
    std::function<int64_t(int64_t)> share;
    if (!f_.group || f_.group->rank() == 0)  // the ranks of a group take the same steps
      share = [round = plan.round](int64_t done) { return share_progress(round, done); };
    Progress progress(fmt::format("round {}/{}", plan.round + 1, f_.config.rounds), all_steps, "steps",
                      f_.all_ranks().rank() == 0, all_steps * (f_.config.rounds - plan.round - 1), share);
    try {
      for (auto const& cohort : mine) {
        auto const trained =
            f_.config.clients_per_pass > 1
                ? train_cohort(plan, cohort, version_of(cohort.front().version), aggregation, progress)
                : std::vector{train_task(plan, cohort.front(), version_of(cohort.front().version),
                                         aggregation, progress)};
        for (auto const& report : trained)
          log_debug("client {} trained {} steps on {} tokens in {:.1f} s", report.client, report.result.steps,
                    report.result.tokens, report.result.seconds);
        reports.insert(reports.end(), trained.begin(), trained.end());
        end_turn();
      }
    } catch (Interrupted const&) {  // what has ended stays
    }
  }
  note_own(reports, clock);
  stopped_ = f_.all_ranks().any(interrupted());
  if (stopped_ && can_rest()) keep_unfinished(mine, reports, aggregation);
  earlier_.reset();
  return gather_reports(reports, comm_);
}

}  // namespace fsllm::detail
