// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/core/progress.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/client_states.hpp"
#include "fsllm/fed/plan.hpp"
#include "fsllm/fed/report.hpp"
#include "fsllm/fed/round.hpp"
#include "fsllm/fed/sampler.hpp"
#include "references.hpp"
#include "unfinished_round.hpp"

namespace fsllm::detail {

/// The clients of a run and the rank that each one belongs to: for evaluation, and where it keeps a state.
/// The same on every rank.
struct Participants {
  Participants(Federation const& federation);
  std::vector<int64_t> all;                 ///< ascending, as those that follow
  std::vector<TrainingClient> trained;      ///< that may train
  std::vector<int64_t> unseen;              ///< evaluated only
  std::vector<std::vector<int64_t>> owned;  ///< by rank
  std::vector<std::string> splits;          ///< that hold rows
};

class RealTime;

/// The global state that turns of a version begin with.
using VersionOf = std::function<ServerState const&(int64_t version)>;

/// What one rank does in a round: it trains its clients' tasks, and evaluates the clients that it owns.
class RankWork {
 public:
  RankWork(Federation& federation, Participants const& who);
  ~RankWork();

  /// Collective: who trains in a round; where that is found out by training, it is done on the way.
  RoundPlan plan(int64_t round, ServerState const& server, Schedule& schedule);
  /// Collective: trains the tasks of this rank and adds their messages to `aggregation`; the reports of all
  /// ranks in client order.
  std::vector<ClientReport> train(RoundPlan const& plan, VersionOf const& version_of,
                                  Aggregation& aggregation);
  /// A signal has stopped train() on any rank: its reports and sums are not those of all.
  bool stopped() const { return stopped_; }
  /// What this rank did in the last train(): turns, tokens and seconds.
  RankReport const& own() const { return own_; }
  /// What this rank has of a round that was stopped; none where it has to begin anew (rank groups, shared
  /// passes, mixtures, real time, and aggregations that keep more than sums).
  std::optional<UnfinishedWork> const& unfinished() const { return unfinished_; }
  /// The next train() goes on with it.
  void go_on(UnfinishedRound earlier) { earlier_ = std::move(earlier); }
  /// The gradients of frozen matrices at the first step of this rank's clients, to which nothing is done.
  void add_gradients(RoundPlan const& plan, std::vector<std::string> const& modules,
                     Aggregation& aggregation);
  /// Collective: losses of all clients after `round` rounds.
  ClientLosses evaluate(ServerState const& server, int64_t round);

  /// Collective: the files of all clients' own states after at most `round` rounds, in client order.
  std::vector<ClientStateFile> state_files(int64_t round) const;
  /// Goes on with the states of the clients that this rank owns.
  void restore_states(std::vector<ClientStateFile> const& all);

  /// What the run adds to frozen matrices, which the reference of pairs is without.
  void set_overlay(Overlay* overlay) { references_.set_overlay(overlay); }

  /// The live parameters are those of the server.
  void take(ServerState const& server) { set_parameters(server.weights); }
  at::Device device() const { return f_.parameters.begin()->second.device(); }
  double first_step() const {
    return first_step_;
  }  ///< seconds from the process's start to the end of its first step

 private:
  struct Member;
  void set_parameters(TensorMap const& values);
  void stop_where_asked() const;
  std::vector<std::vector<ClientTask>> own_cohorts(RoundPlan const& plan) const;
  bool can_rest() const;
  std::vector<std::vector<ClientTask>> remaining(RoundPlan const& plan) const;
  void rest(ClientTurn const& turn, LocalTraining const& training);
  std::optional<RestingTurn> take_resting(ClientTask const& task);
  void keep_unfinished(std::vector<std::vector<ClientTask>> const& mine,
                       std::vector<ClientReport> const& reports, Aggregation const& aggregation);
  GradientHook hook_of(ClientTurn const& turn, GradientHooks const& gradients) const;
  std::unique_ptr<LocalTraining> training_of(ClientTurn const& turn, TensorMap& parameters,
                                             GradientHook const& hook, TurnPart const& part,
                                             TrainConfig const& config, ClientShard const& shard);
  void note_result(ClientTurn& turn, TrainResult const& result, std::vector<ZerothOrderMove> moves) const;
  std::vector<ClientReport> train_cohort(RoundPlan const& plan, std::vector<ClientTask> const& cohort,
                                         ServerState const& server, Aggregation& aggregation,
                                         Progress& progress);
  ClientState state_of(int64_t client, ServerState const& server);
  bool moves(TurnPart const& part, std::string const& parameter, int64_t round) const;
  TrainConfig const& config_of(ClientTask const& task) const;
  TrainConfig config_of(TurnPart const& part, ClientTask const& task) const;
  int64_t steps_of_turn(ClientTask const& task) const;
  void draw_settings(RoundPlan& plan, ServerState const& server) const;
  double validation_loss(ClientTask const& task);
  TensorMap take_steps(ClientTurn& turn, GradientHooks const& gradients, std::vector<TurnPart> const& parts,
                       TensorMap optimizer, Progress& progress);
  TensorMap take_part(ClientTurn& turn, GradientHook const& hook, TurnPart const& part,
                      TensorMap const& optimizer, Progress& progress, std::vector<double> row_weights = {});
  TensorMap start_of(int64_t client, ServerState const& server, TensorMap const& state) const;
  void scale_lora(int64_t client) const;
  void train_personal(ClientTurn const& turn, Progress& progress);
  ClientReport train_task(RoundPlan const& plan, ClientTask const& task, ServerState const& server,
                          Aggregation& aggregation, Progress& progress);
  at::Tensor component_losses(ServerState const& server, int64_t client, TokenSplit const& split);
  ClientReport train_mixture(RoundPlan const& plan, ClientTask const& task, ServerState const& server,
                             Aggregation& aggregation, Progress& progress);
  SplitLoss mixture_loss(ServerState const& server, int64_t client, TokenSplit const& split);
  void end_turn();
  void note_own(std::vector<ClientReport> const& mine, PhaseClock& clock);
  void fine_tune(int64_t client, int64_t round);
  ClientLosses evaluate_all(ServerState const& server, int64_t round);

  Federation& f_;
  Participants const& who_;
  Communicator const& comm_;
  FedAlgorithm const& algorithm_;
  ClientStates states_;
  References references_;
  std::unique_ptr<RealTime> real_time_;  ///< where updates come when they are ready
  TensorMap first_;  ///< the run's first values of parameters that clients have for themselves
  bool stopped_ = false;
  RankReport own_;
  std::optional<UnfinishedRound> earlier_;  ///< of the round that comes next
  std::optional<UnfinishedWork> unfinished_;
  std::optional<RestingTurn> resting_;  ///< the turn that a signal has stopped
  double first_step_ = 0;
};

/// The clients of each rank, balanced by `costs`.
std::vector<std::vector<int64_t>> place_by_cost(Federation const& federation,
                                                std::vector<int64_t> const& clients,
                                                std::vector<double> const& costs);

}  // namespace fsllm::detail
