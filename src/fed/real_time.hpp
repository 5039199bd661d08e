// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "fsllm/comm/mailbox.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/report.hpp"
#include "fsllm/fed/round.hpp"
#include "fsllm/fed/sampler.hpp"
#include "fsllm/train/local_training.hpp"

namespace fsllm::detail {

/// The steps of a turn, begun: `turn` lives as long as the training.
using BeginSteps = std::function<std::unique_ptr<LocalTraining>(ClientTurn& turn, ClientShard const& shard)>;
/// What follows the last step goes into `turn`.
using EndSteps = std::function<void(LocalTraining const& training, ClientTurn& turn)>;

/// Asynchronous training by the clock of the machines: rank 0 serves, each other rank trains one client after
/// another. Between two aggregations ranks exchange letters alone; a turn that is not yet done when the
/// server aggregates waits, and goes on afterwards from where it was, with the weights that it began with.
class RealTime {
 public:
  RealTime(Federation& federation, std::vector<TrainingClient> clients, BeginSteps begin, EndSteps end);
  ~RealTime();

  /// Collective: trains until enough updates have come; they are the tasks of the plan, without weights. None
  /// after a signal.
  RoundPlan await(int64_t round, ServerState const& server);
  /// Adds this rank's updates among the tasks to `aggregation`; their reports.
  std::vector<ClientReport> deliver(RoundPlan const& plan, Aggregation& aggregation);

 private:
  struct Turn;
  struct Update;
  bool is_server() const { return comm_.rank() == 0; }
  RoundPlan serve(int64_t round);
  void assign(int worker);
  void take(int worker, int64_t client, int64_t version, RoundPlan& plan);
  void close(RoundPlan const& plan, bool stop);
  RoundPlan work(int64_t round, ServerState const& server);
  void begin(int64_t client, int64_t round, ServerState const& server);
  void step();
  void park();

  Federation& f_;
  Communicator const& comm_;
  std::vector<TrainingClient> const clients_;
  BeginSteps begin_steps_;
  EndSteps end_steps_;
  Mailbox mailbox_;
  // Rank 0
  std::deque<int64_t> idle_;      ///< clients that may begin, those that have waited longest first
  std::vector<int64_t> waiting_;  ///< clients whose update has come, until it is used
  std::set<int> free_;            ///< ranks without a client
  std::deque<Letter> unread_;     ///< updates that came when the server aggregated
  // Other ranks
  std::unique_ptr<Turn> turn_;
  std::vector<Update> done_;  ///< updates that wait to be used
  int64_t assigned_ = 0;      ///< client that is next; 0: none
  bool told_of_signal_ = false;
};

}  // namespace fsllm::detail
