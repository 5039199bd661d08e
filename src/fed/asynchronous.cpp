// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/asynchronous.hpp"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// The events between two aggregations: turns begin and end.
class Events {
 public:
  Events(AsynConfig const& asyn, std::vector<TrainingClient> const& clients, size_t places,
         DrawIdle const& draw, RoundPlan& plan, VirtualClock& clock)
      : asyn_(asyn), clients_(clients), places_(places), draw_(draw), plan_(plan), clock_(clock) {}

  void run() {
    fill_places();
    auto const awaited = updates_awaited(asyn_, places_);
    double deadline = clock_.time + asyn_.time_budget;
    while (asyn_.time_up || received_.size() < awaited) {
      auto const next = std::ranges::min_element(clock_.at_work, {}, order);
      if (asyn_.time_up && (next == clock_.at_work.end() || next->arrival > deadline)) {
        if (received_.size() >= awaited) break;
        FSLLM_ASSERT(next != clock_.at_work.end());
        deadline = next_deadline(next->arrival);
        continue;
      }
      receive(next);
    }
    if (asyn_.time_up) clock_.time = deadline;
    if (asyn_.overselection) {
      plan_.arrivals->dropped += std::ssize(clock_.at_work);
      clock_.at_work.clear();
    }
    std::ranges::sort(received_, {},
                      [](ClientTask const& task) { return std::pair(task.client, task.version); });
    for (auto const& task : received_) plan_.cohorts.push_back({task});
    plan_.arrivals->virtual_seconds = clock_.time;
  }

 private:
  static std::pair<double, int64_t> order(TurnAtWork const& turn) { return {turn.arrival, turn.client}; }

  /// Too few have come: the server waits for as many budgets more as the next update takes.
  double next_deadline(double arrival) const {
    double const budgets = std::ceil((arrival - clock_.time) / asyn_.time_budget);
    return std::max(arrival, clock_.time + budgets * asyn_.time_budget);
  }

  void begin(TrainingClient const& client, double now) {
    clock_.at_work.push_back({client.id, plan_.round, now + client.seconds});
  }

  /// Who is idle and has not yet sent an update from the newest version may begin.
  void fill_places() {
    std::set<int64_t> busy;
    for (auto const& turn : clock_.at_work) busy.insert(turn.client);
    for (auto const& task : received_)
      if (task.version == plan_.round) busy.insert(task.client);
    auto idle = clients_;
    std::erase_if(idle, [&](TrainingClient const& client) { return busy.contains(client.id); });
    auto const wanted = std::min(idle.size(), places_ - clock_.at_work.size());
    for (auto const& client : draw_(std::move(idle), wanted, draws_++)) begin(client, now_);
  }

  void receive(std::vector<TurnAtWork>::iterator next) {
    auto const turn = *next;
    clock_.at_work.erase(next);
    now_ = turn.arrival;
    if (!asyn_.time_up) clock_.time = now_;
    auto const staleness = plan_.round - turn.version;
    if (asyn_.staleness_toleration >= 0 && staleness > asyn_.staleness_toleration) {
      ++plan_.arrivals->dropped;
      begin(*std::ranges::find(clients_, turn.client, &TrainingClient::id), now_);
      return;
    }
    received_.push_back({turn.client, turn.version, 0});
    if (asyn_.after_receiving) fill_places();
  }

  AsynConfig const& asyn_;
  std::vector<TrainingClient> const& clients_;
  size_t places_;  ///< clients at work at a time
  DrawIdle const& draw_;
  RoundPlan& plan_;
  VirtualClock& clock_;
  double now_ = clock_.time;
  int64_t draws_ = 0;
  std::vector<ClientTask> received_;
};

/// What the server makes of a late update (Nguyen et al. 2022, section 5; Xie et al. 2019, equation of
/// polynomial staleness).
UpdateTransform discount(double exponent) {
  return [exponent](Message& message, ClientTurn const& turn) {
    auto const staleness = turn.plan.round - turn.task.version;
    if (staleness == 0) return;
    double const factor = std::pow(1.0 + static_cast<double>(staleness), -exponent);
    for (auto& [name, tensor] : message.mean) tensor = tensor.mul(factor);
  };
}

}  // namespace

AsynConfig load_asyn_config(Config& config) {
  AsynConfig c;
  c.use = config.get("asyn.use", false,
                     "The server aggregates updates as they come, in virtual time (FedBuff, Nguyen et al. "
                     "2022); federate.total_round_num counts aggregations, federate.sample_client_num "
                     "clients at work at a time.");
  auto const clock =
      config.get("asyn.clock", "virtual",
                 "virtual: who comes when follows from asyn.response_times, so that a run has the same bits "
                 "on any machine. real: it is measured; rank 0 only serves, the other ranks train, a client "
                 "at a time each.",
                 one_of({"virtual", "real"}));
  c.real = clock == "real";
  c.response_times = config.get<std::vector<double>>(
      "asyn.response_times", {},
      "Virtual seconds that a client needs for a turn: client k has entry (k - 1) modulo their number. "
      "Empty: a second for every 1000 tokens that its turn trains on. Samplers know clients by them too.",
      more_than(0));
  c.time_up = config.get("asyn.aggregator", "goal_achieved",
                         "When the server aggregates. goal_achieved: min_received_num updates have come; "
                         "time_up: asyn.time_budget is up (again and again until that many have come).",
                         one_of({"goal_achieved", "time_up"})) == "time_up";
  c.time_budget =
      config.get("asyn.time_budget", 0.0, "Virtual seconds between aggregations by time_up.", at_least(0));
  c.min_received_num = config.get<int64_t>("asyn.min_received_num", 2,
                                           "Updates that an aggregation waits for (M).", at_least(1));
  c.min_received_rate = config.get(
      "asyn.min_received_rate", -1.0,
      "The same as a share of the clients at work; above 0 it goes before min_received_num.", within(-1, 1));
  c.staleness_discount_factor = config.get(
      "asyn.staleness_discount_factor", 1.0,
      "a: an update that is τ versions old counts (1 + τ)^-a times. 0: as any other.", at_least(0));
  c.staleness_toleration =
      config.get<int64_t>("asyn.staleness_toleration", 0,
                          "Versions that an update may be old: an older one is dropped and its client begins "
                          "anew. -1: any.",
                          at_least(-1));
  c.after_receiving =
      config.get("asyn.broadcast_manner", "after_aggregating",
                 "When a client begins its next turn. after_aggregating: when its update has been used; "
                 "after_receiving: as soon as it has come, unless the weights are still those that it has "
                 "trained on.",
                 one_of({"after_aggregating", "after_receiving"})) == "after_receiving";
  c.overselection = config.get("asyn.overselection", false,
                               "Who has not come when the server aggregates is dropped, and a new sample "
                               "begins with the new weights.");
  FSLLM_CHECK(!c.use || !c.time_up || c.time_budget > 0,
              "{}: time_up (asyn.time_budget is {}). Give the virtual seconds between two aggregations.",
              config.where("asyn.aggregator"), c.time_budget);
  return c;
}

void asynchronous(AsynConfig const& asyn, Config const& config, std::string const& method,
                  FedAlgorithm& algorithm) {
  if (!asyn.use) return;
  auto const refuse = [&](bool refused, std::string const& what, char const* why) {
    FSLLM_CHECK(!refused, "{} with {} ({}). Use one of the two.", config.where("asyn.use"), what, why);
  };
  auto const named = "federate.method = " + method;
  refuse(algorithm.kind == Kind::none, named, "nothing is sent");
  refuse(algorithm.merges, named, "there is one client");
  refuse(!algorithm.local_param.empty(), "personalization.local_param",
         "what a client learns for itself in a turn that is dropped is not defined");
  refuse(bool(algorithm.client_state), named,
         "what clients keep from turn to turn is defined for rounds that all begin with the same weights");
  refuse(bool(algorithm.summed) || bool(algorithm.server_extra), named,
         "it adds up what clients of one round send");
  auto const& lora = algorithm.lora_rule;
  refuse(lora != "fedavg" && lora != "ffa" && lora != "fedsb", "federate.lora_aggregation = " + lora,
         "factors that began with another version do not fit the newest");
  refuse(asyn.after_receiving && algorithm.kind == Kind::gather, "aggregator.robust_rule",
         "under asyn.broadcast_manner: after_receiving a client may send twice, and the rule counts clients");
  refuse(asyn.real && asyn.overselection, "asyn.overselection",
         "asyn.clock: real: a rank cannot leave a client that it trains");
  refuse(asyn.after_receiving && asyn.overselection, "asyn.broadcast_manner = after_receiving",
         "asyn.overselection lets all begin together");
  algorithm.transforms.push_back(discount(asyn.staleness_discount_factor));
}

void check_ranks(AsynConfig const& asyn, int ranks) {
  FSLLM_CHECK(
      !asyn.use || !asyn.real || ranks > 1,
      "asyn.clock = real (there is one rank, which serves: nobody would train). Start it under mpirun "
      "-np 2 or more, or set it to virtual.");
}

size_t updates_awaited(AsynConfig const& asyn, size_t at_work) {
  auto const share = static_cast<size_t>(asyn.min_received_rate * static_cast<double>(at_work));
  auto const awaited =
      asyn.min_received_rate > 0 ? std::max<size_t>(1, share) : static_cast<size_t>(asyn.min_received_num);
  FSLLM_CHECK(awaited <= at_work,
              "asyn.min_received_num = {} (only {} clients are at work at a time). Lower it, or raise "
              "federate.sample_client_num.",
              awaited, at_work);
  return awaited;
}

std::vector<int64_t> versions_in_use(AsynConfig const& asyn, VirtualClock const& clock, int64_t round) {
  std::set<int64_t> versions;
  for (auto const& turn : clock.at_work)
    if (turn.version < round &&
        (asyn.staleness_toleration < 0 || round - turn.version <= asyn.staleness_toleration))
      versions.insert(turn.version);
  return {versions.begin(), versions.end()};
}

void await_updates(AsynConfig const& asyn, std::vector<TrainingClient> const& clients, size_t at_work,
                   DrawIdle const& draw, RoundPlan& plan, VirtualClock& clock) {
  plan.arrivals.emplace();
  Events(asyn, clients, at_work, draw, plan, clock).run();
}

}  // namespace fsllm
