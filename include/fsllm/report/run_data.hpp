// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fsllm {

/// How a value differs between clients.
struct Spread {
  double min = 0, p10 = 0, p50 = 0, p90 = 0, max = 0;
};

/// One round as metrics.jsonl has it; round 0 is the evaluation before training. Losses are those of the
/// run's kind (RunData::loss_name), by split: train, val, test, val_unseen, test_unseen.
struct RoundFacts {
  int64_t round = 0;
  std::map<std::string, double> losses;
  std::map<std::string, Spread> spread;  ///< of clients' losses, by split
  std::map<std::string, double> seconds;
  std::map<std::string, double> tasks;  ///< "mmlu acc,none"
  std::optional<double> tokens_per_second, aggregation_error;
  int64_t clients = 0;  ///< that trained
  int64_t tokens = 0, bytes_up = 0, bytes_down = 0, peak_rss_bytes = 0, device_bytes = 0;
  bool best = false;
};

struct ClientFacts {
  int64_t turns = 0;
  double seconds = 0;
  std::optional<double> train_loss;                                      ///< of its last turn
  std::map<std::string, std::pair<double, double>> losses;               ///< first and last, by split
  std::optional<int64_t> train_rows, train_tokens, val_rows, test_rows;  ///< of its shard
};

/// Sums over all rounds.
struct RankTotals {
  int64_t turns = 0, tokens = 0, peak_rss_bytes = 0;
  std::map<std::string, double> seconds;  ///< train, wait, aggregate, evaluate
};

/// A run as its folder tells it: what reports, tables in the terminal and comparisons are made of.
struct RunData {
  std::filesystem::path folder;
  std::string name;
  bool finished = false, stopped_early = false;
  int64_t planned_rounds = 0, best_round = 0;
  std::string loss_name = "loss_per_token";  ///< or loss_per_pair
  std::vector<RoundFacts> rounds;            ///< ascending, each once
  std::map<int64_t, ClientFacts> clients;
  std::vector<std::pair<int64_t, int64_t>>
      turns;  ///< (round, client) of every training, as they were written
  std::map<int64_t, RankTotals> ranks;
  std::optional<double> began, ended;                       ///< seconds since 1970
  std::vector<std::pair<std::string, std::string>> config;  ///< KEY, value
  nlohmann::ordered_json environment;                       ///< run.json's computed_on, null without
  std::vector<std::string> problems;                        ///< what is missing or damaged

  RoundFacts const* last() const { return rounds.empty() ? nullptr : &rounds.back(); }
  int64_t done() const { return rounds.empty() ? 0 : rounds.back().round; }
  std::string setting(std::string const& key) const;
};

/// Reads a run directory, finished or not. A folder that holds no run is an Error; a damaged line or a file
/// that is missing is told by `problems`.
RunData read_run_data(std::filesystem::path const& folder);

/// Splits that clients are judged by, in the order of reports, of those that any round has.
std::vector<std::string> held_out_splits(RunData const& run);
/// Held-out loss that decides: of val where there is one, else of test; the smallest and its round.
std::optional<std::pair<int64_t, double>> best_loss(RunData const& run);
/// Sum of a phase's seconds over all rounds; "" for train, aggregate, evaluate and tasks together.
double seconds_in(RunData const& run, std::string const& phase);

}  // namespace fsllm
