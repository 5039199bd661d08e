// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/fed/algorithm.hpp"
#include "fsllm/fed/sampler.hpp"

namespace fsllm {

/// Keys `asyn.*`: the server takes updates as they come, in virtual or real time. FedBuff (Nguyen et al.
/// 2022); with min_received_num 1 FedAsync (Xie et al. 2019).
struct AsynConfig {
  bool use = false;
  bool real = false;                   ///< by the clock of the machines
  std::vector<double> response_times;  ///< virtual seconds of client k: entry (k - 1) mod length
  bool time_up = false;                ///< aggregates when time_budget is up, not when enough have come
  double time_budget = 0;              ///< virtual seconds
  int64_t min_received_num = 2;        ///< M
  double min_received_rate = -1;       ///< above 0: M as a share of the clients at work
  double staleness_discount_factor = 1;
  int64_t staleness_toleration = 0;  ///< versions; -1: any
  bool after_receiving = false;      ///< clients begin anew when their update has come, not when it is used
  bool overselection = false;        ///< who has not come when the server aggregates is dropped
};
AsynConfig load_asyn_config(Config& config);

/// What is not defined where updates come from different versions is an Error; others are discounted by
/// (1 + staleness)^-a.
void asynchronous(AsynConfig const& asyn, Config const& config, std::string const& method,
                  FedAlgorithm& algorithm);

/// Real time with nobody beside the server is an Error.
void check_ranks(AsynConfig const& asyn, int ranks);

/// Updates of an aggregation (M), of so many clients at work.
size_t updates_awaited(AsynConfig const& asyn, size_t at_work);

/// A client's turn that has begun and not ended.
struct TurnAtWork {
  int64_t client = 0, version = 0;
  double arrival = 0;  ///< virtual seconds
};

/// Virtual time between two aggregations.
struct VirtualClock {
  double time = 0;
  std::vector<TurnAtWork> at_work;
};

/// Versions before `round` that turns at work may still be counted with, ascending.
std::vector<int64_t> versions_in_use(AsynConfig const& asyn, VirtualClock const& clock, int64_t round);

/// Who may begin a turn: draws `wanted` of `idle`, the `number`th time in this round.
using DrawIdle = std::function<std::vector<TrainingClient>(std::vector<TrainingClient> idle, size_t wanted,
                                                           int64_t number)>;

/// Gives the plan of a round its tasks: the turns that the aggregation takes, in the order of clients and
/// versions, without weights; `clock` goes on.
void await_updates(AsynConfig const& asyn, std::vector<TrainingClient> const& clients, size_t at_work,
                   DrawIdle const& draw, RoundPlan& plan, VirtualClock& clock);

}  // namespace fsllm
