// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fsllm/core/jsonl_writer.hpp"
#include "fsllm/core/progress.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/personal.hpp"
#include "fsllm/fed/report.hpp"
#include "fsllm/fed/round.hpp"
#include "fsllm/fed/selection.hpp"
#include "fsllm/io/checkpoint.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm::detail {

/// The run between two rounds: what a checkpoint holds, and the fixed facts that follow from the
/// configuration.
class Run {
 public:
  explicit Run(Federation& federation);
  RunSummary train(bool resume);

 private:
  bool local() const { return config_.method == "local"; }
  bool server() const { return comm_.rank() == 0; }
  std::vector<std::vector<int64_t>> place(std::vector<int64_t> const& clients) const;
  void restore();
  bool is_ended(Checkpoint const& checkpoint) const;
  TensorMap const& start_of(int64_t client) const;
  at::Device device() const { return f_.parameters.begin()->second.device(); }
  TensorMap kept(TensorMap const& values) const;
  TensorMap layout_of_kept() const;
  void end_turn();
  ClientReport train_client_here(int64_t client, int64_t round, double weight, Aggregation& aggregation,
                                 Progress& progress);
  std::vector<ClientReport> train_round(int64_t round, Aggregation& aggregation);
  ClientLosses evaluate();
  ClientLosses evaluate_all();
  bool select(RoundReport& report);
  void write_report(RoundReport const& report);
  void save_as(std::string const& name, TensorMap const& values);
  void save_state(int64_t rounds_done);
  void save_results(int64_t rounds_done);
  void note_for_signals() const;
  void save_interrupted();

  Federation& f_;
  FedConfig const& config_;
  Communicator const& comm_;
  std::vector<int64_t> clients_;             ///< that take part
  std::vector<int64_t> unseen_, trained_;    ///< those that only evaluate, and the others
  std::vector<std::vector<int64_t>> owned_;  ///< clients of each rank for evaluation and personal state
  std::vector<std::string> splits_;          ///< splits that hold rows
  TensorMap global_, best_;
  PersonalStates personal_;
  std::unique_ptr<FedAlgorithm> algorithm_;
  Selection selection_;
  std::unique_ptr<JsonlWriter> metrics_;
  int64_t done_ = 0, best_round_ = 0;
  int64_t saved_ = 0;                  ///< rounds that the newest checkpoint holds
  bool ended_ = false;                 ///< before it was resumed
  std::string record_;                 ///< run.json
  bool stopped_ = false;               ///< by a signal, on any rank
  double first_step_ = 0;              ///< seconds from the start of the process to the end of its first step
  nlohmann::ordered_json last_event_;  ///< in metrics.jsonl
};

}  // namespace fsllm::detail
