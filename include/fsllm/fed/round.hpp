// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "fsllm/comm/collective.hpp"
#include "fsllm/fed/algorithm.hpp"
#include "fsllm/fed/client_data.hpp"
#include "fsllm/fed/config.hpp"
#include "fsllm/fed/evaluate.hpp"
#include "fsllm/fed/report.hpp"
#include "fsllm/fed/run_directory.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// What is known of values when they are written.
struct ResultFacts {
  int64_t round = 0;
  nlohmann::ordered_json losses = {};  ///< "train", "val" and "test" as in an event of metrics.jsonl
  bool of_client = false;              ///< one of many results: files that all have are left out
};

/// What a federated run works on. The caller (app) owns everything.
struct Federation {
  FedConfig const& config;
  ClientConfigs train_config;
  CausalLM& model;
  TensorMap parameters;  ///< live trainable tensors inside `model`: what is exchanged
  ClientData& data;
  Collective& collective;
  RunDirectory directory;
  OutputFolder* output = nullptr;  ///< of `directory`, on rank 0
  bool rest_on_host = false;  ///< what clients leave between their turns lies in host memory, not on the GPU
  bool full_model = false;    ///< every parameter is trained, no adapter
  std::string config_yaml;    ///< resolved, kept in checkpoints
  std::string record;         ///< run.json: inputs and what computes, kept in checkpoints; on rank 0
  /// The record from `round` on, given that of the checkpoint; rank 0 only. Other inputs are an Error. May be
  /// empty, as check_inputs.
  std::function<std::string(std::string const& before, int64_t round)> continued_record;
  std::function<void()> check_inputs;  ///< rank 0 only: an input that changed since the start is an Error
  /// Writes a set of values as an adapter (or model) folder, with what the frozen matrices have beyond the
  /// model's (Overlay::values); rank 0 only.
  /// Where values are parts (RankGroup::partitions) it is called by all ranks of the first group.
  std::function<void(std::filesystem::path const& dir, TensorMap const& values, TensorMap const& overlay,
                     ResultFacts const& facts)>
      save;
  /// Writes the model with a saved adapter in its weights; rank 0 only.
  std::function<void(std::filesystem::path const& dir, std::filesystem::path const& adapter)> save_merged =
      {};
  LoraFactors lora = {};
  /// Makes every s of LoRA this times what the configuration says.
  std::function<void(double factor)> scale_lora = {};
  std::function<TensorMap(int64_t clients)> slots = {};  ///< Peft::slots
  TensorMap fixed = {};                                  ///< Peft::fixed_factors
  /// Does some work while `model` has no adapter.
  std::function<void(std::function<void()> const& work)> without_adapter = {};
  /// Where several ranks train a client: those of this rank's, and all of the run. `collective` then joins
  /// the ranks of the same number in their groups, which have the same parts of everything; rank 0 of each is
  /// a server of its parts.
  RankGroup* group = nullptr;
  Communicator const* world = nullptr;  ///< null: that of `collective`
  /// Where the model that clients train stands for another one that rank 0 has: that one with these values,
  /// which clients are judged by then, at rank 0. Empty: by `model`, where they are.
  std::function<CausalLM&(TensorMap const& values)> judged_model = {};
  /// Called on every rank whenever the server has sent ServerState::extra; may be empty.
  std::function<void(TensorMap const& extra)> received = {};
  std::string judged = {};  ///< what clients are judged by, for people; "" where there is one model
  /// Collective over all ranks: what tasks make of `model` as it stands after `round`, with these global
  /// values; nothing where a signal has stopped it. Empty: there are none.
  std::function<std::optional<TaskMetrics>(TensorMap const& values, int64_t round)> examine = {};
  /// The settings of a client under a choice of FedAlgorithm::searched.
  std::function<TrainConfig const&(int64_t client, int64_t choice)> searched_config = {};
  int64_t examine_every = 0;  ///< rounds; 0: at the end alone
  /// Puts the record of a run that goes on after `round` into its directory. Rank 0; may be empty.
  std::function<void(std::string const& record, int64_t round)> write_record = {};
  Communicator const& all_ranks() const { return world ? *world : collective.communicator(); }
};

struct RunSummary {
  int64_t rounds = 0;
  bool stopped_early = false;
  bool interrupted = false;  ///< by a signal or the time limit
  bool saved = false;        ///< there is something that a new start goes on with
};

/// Collective: all rounds from the beginning, or from the newest checkpoint when `resume`. Method "local"
/// trains every client alone (no communication of weights) instead.
RunSummary run_rounds(Federation& federation, bool resume);

}  // namespace fsllm
