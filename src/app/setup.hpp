// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>

#include "check_env.hpp"
#include "fsllm/app/adapter_info.hpp"
#include "fsllm/app/command_line.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/fed/client_data.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/offsite/emulator.hpp"
#include "hand_files.hpp"
#include "searched_settings.hpp"

namespace fsllm {

/// Everything decided before the model is loaded; the same on every rank.
struct Setup {
  RunConfig run;
  std::map<int64_t, ClientConfig> clients;     ///< --client_cfg
  std::shared_ptr<SearchedSettings> searched;  ///< of hpo.fedex
  PromptTemplate prompt;
  std::optional<Config> config;          ///< every key declared and resolved
  std::string resolved_yaml;             ///< the same as text
  std::string client_yaml;               ///< text of --client_cfg, or that of the run that goes on
  std::filesystem::path model_dir;       ///< of the model that clients train: the emulator, once it is made
  std::filesystem::path full_model_dir;  ///< what model.type says, which the result belongs to
  std::shared_ptr<GgufReader const> model_file;  ///< of a GGUF model: read once for all that look into it
                                                 ///< while the program starts
  std::shared_ptr<HandedFiles> handed;           ///< while the program starts
  RunDirectory directory;
  std::shared_ptr<OutputFolder> output;  ///< of `directory`, on rank 0
  LoadOptions load;
  DevicePlan device;
  Vocabulary vocabulary;
  ModelConfig model;                     ///< its vocab_size is that of `vocabulary`
  std::optional<EmulatorPlan> emulator;  ///< llm.offsite_tuning
  bool resume = false;
  AdapterInfo info;                                        ///< of the result
  std::vector<std::string> launch_warnings;                ///< judge_launch()
  std::vector<std::pair<std::string, std::string>> files;  ///< option and path of what the command line names

  Tokenizer const* tokenizer() const { return vocabulary.tokenizer.get(); }
  std::string tokenizer_sha256() const { return tokenizer() != nullptr ? tokenizer()->sha256() : ""; }
};

/// Collective: reads and checks everything that does not need the weights.
Setup set_up(CommandLine const& line, Communicator const& comm);

/// Collective: the folder for results and the model that the configuration names, which need not be there.
EnvironmentPaths environment_paths(CommandLine const& line, Communicator const& comm);

/// Most tokens of a row, beside the virtual ones of the adapter; 0: no limit.
int64_t most_tokens(Setup const& s);

/// What would be found in a later round is an Error: settings of no client (--client_cfg), too few clients to
/// sample from, clients without training rows.
void check_clients(Setup const& s, std::vector<int64_t> const& clients,
                   std::function<int64_t(int64_t client)> const& training_rows);

}  // namespace fsllm
