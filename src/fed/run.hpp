// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "fsllm/core/jsonl_writer.hpp"
#include "fsllm/fed/overlay.hpp"
#include "fsllm/fed/plan.hpp"
#include "fsllm/fed/report.hpp"
#include "fsllm/fed/round.hpp"
#include "fsllm/fed/selection.hpp"
#include "fsllm/io/checkpoint.hpp"
#include "fsllm/io/jsonl.hpp"
#include "rank_work.hpp"

namespace fsllm::detail {

/// The run between two rounds: what a checkpoint holds beside the clients' own states.
struct RunState {
  RunState(Federation const& federation, bool is_server);
  ServerState server;                       ///< the same on every rank
  std::map<int64_t, ServerState> earlier;   ///< versions of it that turns at work began with, likewise
  Selection selection;                      ///< the same on every rank
  Schedule schedule;                        ///< the same on every rank
  int64_t done = 0, best_round = 0;         ///< rounds
  std::unique_ptr<ServerStep> server_step;  ///< rank 0 only, as what follows
  TensorMap best;
  std::string record;  ///< run.json

  ServerState const& version(int64_t version) const;
};

/// The rounds, and what they leave in the run directory.
class Run {
 public:
  explicit Run(Federation& federation);
  RunSummary train(bool resume);

 private:
  /// Does this rank move the global state (its part of it, where ranks have parts)?
  bool server() const { return comm_.rank() == 0; }
  /// Is it the one that writes files?
  bool writes() const { return f_.all_ranks().rank() == 0; }
  bool has_parts() const { return f_.group != nullptr && f_.group->partitions(); }
  void restore();
  void restore_server(Checkpoint& checkpoint);
  std::vector<std::string> state_file_names(int64_t client, int64_t round) const;
  bool is_ended(Checkpoint const& checkpoint) const;
  bool begin(bool resume);
  RoundReport train_round(int64_t round);
  void check_same_state(int64_t round) const;
  void serve(Message const& arrived, RoundPlan const& plan);
  void broadcast(TensorMap& weights, TensorMap& extra);
  void publish(TensorMap changed);
  void fix_factors();
  void keep_versions(int64_t round);
  void judge(RoundReport& report);
  void judge_average();
  bool is_over() const;
  bool examine();
  void open_logs();
  void write_event(nlohmann::ordered_json const& event, double time);
  void write_report(RoundReport const& report);
  std::optional<double> seconds_left(int64_t done) const;
  void save_as(std::string const& name, TensorMap const& values, ResultFacts const& facts);
  void restore_versions(Checkpoint const& checkpoint);
  void save_versions(Checkpoint& checkpoint) const;
  void restore_states(Checkpoint const& checkpoint);
  void own_state_files(RoundPlan const& plan);
  void remove_state_files(std::function<bool(int64_t client, int64_t round)> const& superfluous);
  void remove_old_state_files();
  void save_state();
  void save_mixture(std::string const& folder, ClientStates& states,
                    std::vector<ClientStateFile> const& clients);
  void save_results();
  void note_for_signals() const;
  void restore_unfinished();
  void save_unfinished();
  RunSummary save_interrupted();

  Federation& f_;
  FedConfig const& config_;
  FedAlgorithm const& algorithm_;
  Communicator const& comm_;
  Participants const who_;
  RankWork work_;
  RunState state_;
  std::unique_ptr<Overlay> overlay_;  ///< null unless the algorithm changes frozen matrices
  std::unique_ptr<JsonlWriter> metrics_, client_metrics_, rank_metrics_;
  std::map<int64_t, std::set<int64_t>> state_rounds_;  ///< files of clients' states, on rank 0
  bool unfinished_saved_ = false;                      ///< of the round after them
  int64_t saved_ = 0;                                  ///< rounds that the newest checkpoint holds
  bool ended_ = false;                                 ///< before it was resumed
  std::chrono::steady_clock::time_point began_;        ///< the first round of this process
  int64_t first_ = 0;                                  ///< rounds done before it
  int64_t examined_ = 0;                               ///< last round after which tasks were done
  TaskMetrics tasks_;                                  ///< what came of them
  nlohmann::ordered_json last_event_;                  ///< in metrics.jsonl, of a round
  nlohmann::ordered_json average_;                     ///< what it says of FedSWA's mean when it ends
};

}  // namespace fsllm::detail
