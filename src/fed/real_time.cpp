// SPDX-License-Identifier: Apache-2.0
#include "real_time.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include "fsllm/comm/stall.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/fed/asynchronous.hpp"
#include "stop.hpp"

namespace fsllm::detail {
namespace {

/// What letters begin with. To the server: {update_came, client, version}, {left} (the last letter before the
/// aggregation), {signal_came}. From it: {train, client}, {aggregate, stop, client, version, client, ...}.
enum LetterKind : int64_t { update_came, left, signal_came, train, aggregate };

using Clock = std::chrono::steady_clock;

void wait_a_little() {
  check_launcher();
  std::this_thread::sleep_for(std::chrono::microseconds(200));
}

}  // namespace

/// A turn that has begun.
struct RealTime::Turn {
  RoundPlan plan;
  ServerState server;  ///< that it began with
  TensorMap start, state;
  std::shared_ptr<ClientShard const> shard;
  std::unique_ptr<ClientTurn> turn;
  std::unique_ptr<LocalTraining> training;
  TensorMap parked;  ///< parameters, while the server aggregates
};

/// A turn that is done.
struct RealTime::Update {
  ClientTask task;
  ServerState server;
  TensorMap start, update;
  TrainResult result;
};

RealTime::RealTime(Federation& federation, std::vector<TrainingClient> clients, BeginSteps begin,
                   EndSteps end)
    : f_(federation),
      comm_(federation.collective.communicator()),
      clients_(std::move(clients)),
      begin_steps_(std::move(begin)),
      end_steps_(std::move(end)),
      mailbox_(comm_) {
  check_ranks(f_.config.asyn, comm_.size());
  for (auto const& client : clients_) idle_.push_back(client.id);
  for (int rank = 1; rank < comm_.size(); ++rank) free_.insert(rank);
}

RealTime::~RealTime() = default;

RoundPlan RealTime::await(int64_t round, ServerState const& server) {
  auto plan = is_server() ? serve(round) : work(round, server);
  plan.all_clients = std::ssize(clients_);
  return plan;
}

/// The client that has waited longest, of those whose shard the rank may open.
void RealTime::assign(int worker) {
  auto const next = std::ranges::find_if(idle_, [&](int64_t client) {
    auto const& ranks = f_.data.ranks_of(client);
    return ranks.empty() || std::ranges::find(ranks, worker) != ranks.end();
  });
  if (next == idle_.end()) {
    free_.insert(worker);
    return;
  }
  mailbox_.send(worker, {train, *next});
  idle_.erase(next);
  free_.erase(worker);
}

/// An update has come.
void RealTime::take(int worker, int64_t client, int64_t version, RoundPlan& plan) {
  auto const& asyn = f_.config.asyn;
  if (asyn.staleness_toleration >= 0 && plan.round - version > asyn.staleness_toleration) {
    ++plan.arrivals->dropped;
    idle_.push_front(client);
  } else {
    plan.cohorts.push_back({{client, version, 0}});
    if (asyn.after_receiving && version < plan.round)
      idle_.push_back(client);
    else
      waiting_.push_back(client);
  }
  free_.insert(worker);
}

RoundPlan RealTime::serve(int64_t round) {
  set_activity(fmt::format("waiting for updates of round {}", round + 1));
  RoundPlan plan{round, 0, {}, Arrivals{}};
  auto const& asyn = f_.config.asyn;
  auto const awaited = updates_awaited(asyn, clients_.size());
  auto const begun = Clock::now();
  auto const enough = [&] {
    bool const time =
        !asyn.time_up || Clock::now() - begun >= std::chrono::duration<double>(asyn.time_budget);
    return time && plan.cohorts.size() >= awaited;
  };
  idle_.insert(idle_.end(), waiting_.begin(), waiting_.end());
  waiting_.clear();
  bool stop = false;
  while (!enough() && !stop) {
    for (int const worker : std::set(free_)) assign(worker);
    auto letter = mailbox_.receive();
    if (!unread_.empty()) {
      if (letter) unread_.push_back(std::move(*letter));
      letter = std::move(unread_.front());
      unread_.pop_front();
    }
    if (!letter)
      wait_a_little();
    else if (letter->values[0] == update_came)
      take(letter->from, letter->values[1], letter->values[2], plan);
    stop = interrupted() || (letter && letter->values[0] == signal_came);
  }
  std::ranges::sort(plan.cohorts, {},
                    [](auto const& cohort) { return std::pair(cohort[0].client, cohort[0].version); });
  close(plan, stop);
  if (stop) plan.cohorts.clear();
  return plan;
}

/// Tells all ranks what is used, and waits until each has left its work.
void RealTime::close(RoundPlan const& plan, bool stop) {
  std::vector<int64_t> values{aggregate, stop ? 1 : 0, plan.arrivals->dropped};
  for (auto const& task : tasks(plan)) values.insert(values.end(), {task.client, task.version});
  for (int rank = 1; rank < comm_.size(); ++rank) mailbox_.send(rank, values);
  for (int at_work = comm_.size() - 1; at_work > 0;) {
    auto letter = mailbox_.receive();
    if (!letter)
      wait_a_little();
    else if (letter->values[0] == left)
      --at_work;
    else
      unread_.push_back(std::move(*letter));
  }
}

RoundPlan RealTime::work(int64_t round, ServerState const& server) {
  RoundPlan plan{round, 0, {}, Arrivals{}};
  if (turn_) copy_values(f_.parameters, turn_->parked);
  while (true) {
    if (auto const letter = mailbox_.receive()) {
      auto const& values = letter->values;
      if (values[0] == train) {
        assigned_ = values[1];
        continue;
      }
      plan.arrivals->dropped = values[2];
      for (size_t at = 3; values[1] == 0 && at < values.size(); at += 2)
        plan.cohorts.push_back({{values[at], values[at + 1], 0}});
      break;
    }
    if (interrupted() && !std::exchange(told_of_signal_, true)) mailbox_.send(0, {signal_came});
    if (turn_)
      step();
    else if (assigned_ != 0)
      begin(std::exchange(assigned_, 0), round, server);
    else
      wait_a_little();
  }
  park();
  mailbox_.send(0, {left});
  return plan;
}

void RealTime::begin(int64_t client, int64_t round, ServerState const& server) {
  turn_ = std::make_unique<Turn>();
  auto& t = *turn_;
  t.plan.round = round;
  t.server = {clone(server.weights), clone(server.extra)};
  t.start = moved(f_.config.algorithm.start(t.server, {}), f_.parameters.begin()->second.device());
  set_activity(fmt::format("training client {}", client));
  t.shard = f_.data.shard(client);
  t.turn = std::make_unique<ClientTurn>(
      ClientTurn{t.plan, {client, round, 0}, t.server, t.start, f_.parameters, t.state, {}, {}});
  t.training = begin_steps_(*t.turn, *t.shard);
}

/// One step; after the last one the server is told.
void RealTime::step() {
  auto& t = *turn_;
  if (!t.training->done()) {
    check_launcher();
    t.training->step();
    return;
  }
  end_steps_(*t.training, *t.turn);
  auto const task = t.turn->task;
  done_.push_back({task, std::move(t.server), std::move(t.start), t.turn->update, t.turn->result});
  turn_.reset();
  mailbox_.send(0, {update_came, task.client, task.version});
}

void RealTime::park() {
  if (turn_) turn_->parked = clone(f_.parameters);
}

std::vector<ClientReport> RealTime::deliver(RoundPlan const& plan, Aggregation& aggregation) {
  auto const& asyn = f_.config.asyn;
  std::vector<ClientReport> reports;
  for (auto const& task : tasks(plan)) {
    auto const found = std::ranges::find_if(done_, [&](Update const& update) {
      return update.task.client == task.client && update.task.version == task.version;
    });
    if (found == done_.end()) continue;
    TensorMap state;
    ClientTurn turn{plan,          task,  found->server, found->start,
                    f_.parameters, state, found->update, found->result};
    reports.push_back({task.client, turn.result, l2_norm(turn.update), task.version});
    aggregation.add(message_of(f_.config.algorithm, turn), task);
    done_.erase(found);
  }
  std::erase_if(done_, [&](Update const& update) {
    return asyn.staleness_toleration >= 0 && plan.round + 1 - update.task.version > asyn.staleness_toleration;
  });
  return reports;
}

}  // namespace fsllm::detail
