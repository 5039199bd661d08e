// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/comm/collective.hpp"
#include "fsllm/fed/algorithm.hpp"
#include "fsllm/fed/evaluate.hpp"
#include "fsllm/fed/run_directory.hpp"
#include "fsllm/train/trainer.hpp"

namespace fsllm {

/// What tasks made of the global model: task → metric ("acc,none") → value.
using TaskMetrics = std::map<std::string, std::map<std::string, double>>;

/// What one client did in one turn.
struct ClientReport {
  int64_t client = 0;
  TrainResult result;
  double update_norm = 0;
  int64_t version = 0;
};

/// Collective: the reports of all ranks in the order of clients and versions, on every rank.
std::vector<ClientReport> gather_reports(std::vector<ClientReport> const& mine, Communicator const& comm);

/// Wall-clock seconds of the phases of a round on this rank.
class PhaseClock {
 public:
  PhaseClock() : last_(std::chrono::steady_clock::now()) {}
  /// The time since the previous call belongs to `phase`.
  void lap(std::string const& phase);
  std::map<std::string, double> const& seconds() const { return seconds_; }

 private:
  std::chrono::steady_clock::time_point last_;
  std::map<std::string, double> seconds_;
};

/// What one rank did in a round, by its own clock.
struct RankReport {
  int64_t rank = 0, turns = 0, tokens = 0;  ///< turns of clients that it trained, and their tokens
  double train = 0;                         ///< seconds of them
  double wait = 0;                          ///< then for the other ranks
  double aggregate = 0, evaluate = 0;
  int64_t peak_rss_bytes = 0;
};

/// Everything that metrics.jsonl, metrics_clients.jsonl and metrics_ranks.jsonl say about one round.
struct RoundReport {
  int64_t round = 0;  ///< rounds completed, from 1; 0 is the evaluation before training
  std::vector<ClientReport> clients;
  std::optional<Arrivals> arrivals;
  ClientLosses losses;  ///< empty when this round was not evaluated
  std::string judged;   ///< Federation::judged
  bool best = false;
  int64_t bytes_up = 0, bytes_down = 0;  ///< of all ranks
  int64_t bytes_in_groups = 0;           ///< that ranks which train a client together exchanged
  int64_t peak_rss_bytes = 0;            ///< largest of all ranks
  int64_t device_bytes = 0;  ///< live tensors on a GPU when its clients rest, largest of all ranks
  std::map<std::string, double> seconds;
  std::map<std::string, double> facts;  ///< ServerState::facts
  std::vector<RankReport> ranks;        ///< of all
};

/// Collective: fills bytes, memory and `ranks` from all ranks (`before` is this rank's traffic at the start
/// of the round, `own` what it did in it).
void measure_ranks(RoundReport& report, Collective& collective, Traffic const& before, RankReport own,
                   Communicator const& all_ranks);

/// The event of metrics.jsonl: sums over clients, and quantiles of them, however many there are.
nlohmann::ordered_json to_json(RoundReport const& report);
/// Of each split its mean loss and the clients' quantiles, as in an event.
nlohmann::ordered_json to_json(ClientLosses const& losses);
/// The lines of metrics_clients.jsonl: one for each client that trained or was evaluated, in their order;
/// of a client with two turns (asynchronous runs) one each, the first with its losses.
std::vector<nlohmann::ordered_json> client_lines(RoundReport const& report);
/// The lines of metrics_ranks.jsonl: one a rank; that of rank 0 has the time at which the round ended.
std::vector<nlohmann::ordered_json> rank_lines(RoundReport const& report, double time);
/// The last event of metrics.jsonl that is of tasks (`kind` "tasks"), or that is not; an empty object where
/// there is none.
nlohmann::ordered_json last_event(std::filesystem::path const& metrics, std::string const& kind = "");
/// FS-LLM's lines of eval_results.log: the raw results of each of up to 100 clients, and the weighted mean.
std::string eval_result_lines(RoundReport const& report);
/// The last of them alone, as FS-LLM writes it for the mean of FedSWA.
std::string average_result_line(ClientLosses const& losses, int64_t round);
/// "round 3/10: train loss 2.31, val loss 2.40, best so far, 1234 tokens/s, 1:05 min left, slowest rank 1
/// (9.8 s of training, mean 7.1 s), 391 MiB"; `seconds_left` of the run, none before its first round and
/// after its last.
std::string round_line(RoundReport const& report, int64_t rounds, std::optional<double> seconds_left = {});

}  // namespace fsllm
