// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/core/config.hpp"
#include "fsllm/data/data_config.hpp"
#include "fsllm/fed/config.hpp"
#include "fsllm/fed/run_directory.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/model/checkpointing.hpp"
#include "fsllm/offsite/config.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/train/trainer.hpp"

namespace fsllm {

/// eval.tasks: what the global model is asked during a run.
struct RunTasksConfig {
  std::vector<std::string> names;  ///< task_names()
  std::string data;                ///< folder that holds mmlu/, gsm8k/, ...
  int64_t limit = 0;               ///< TaskOptions::limit
  std::optional<int64_t> shots;
  int64_t freq = 0;  ///< rounds between; 0: at the end alone
};

/// A whole run, composed of the modules' own configurations.
struct RunConfig {
  std::string outdir, expname;
  std::string model_type, model_cache;
  std::string threads;                   ///< "auto" or a number
  double stall_warning_s = 60;           ///< comm/stall.hpp
  std::string use_gpu;                   ///< auto, True or False
  std::vector<std::string> shard_roots;  ///< folders of shards that only some ranks see
  double time_limit_margin = 120;        ///< seconds
  std::string stage_dir;                 ///< place of converted weights; empty: the run directory
  bool half = false;                     ///< train.is_enable_half
  std::string storage_dtype, compute_dtype;
  Checkpointing checkpointing = Checkpointing::none;  ///< of activations
  int64_t frozen_rows_bytes = 0;                      ///< model/frozen_rows.hpp
  DataConfig data;
  PeftConfig peft;
  std::string base_model_name;  ///< llm.adapter.base_model_name
  TrainConfig train;
  FedConfig fed;
  GroupConfig group;
  OffsiteConfig offsite;
  RunTasksConfig tasks;
};

/// Reads every key of the program, checks the fields against each other and rejects unknown keys. One Error
/// tells all mistakes.
RunConfig load_run_config(Config& config);
/// The text of a configuration: of a file, or of the built-in example that `example:NAME` names.
std::string configuration_text(std::string const& source);
/// A configuration of defaults, with every key declared.
Config all_keys();

RunTasksConfig load_run_tasks(Config& config, std::string const& data_root);
/// What cannot be put to tasks during a run is an Error.
void check_run_tasks(RunConfig const& run, Config const& config);

/// What --client_cfg says of a client.
struct ClientConfig {
  TrainConfig train;
  std::optional<ClientRank> lora;  ///< where its LoRA has another r or lora_alpha than the run's
};

/// Per-client overrides of --client_cfg: `client_3: {train: {...}}`. Keys of training may differ by client,
/// and r and lora_alpha of the run's LoRA.
std::map<int64_t, ClientConfig> load_client_configs(Config const& base, Config const& clients,
                                                    PeftConfig const& peft);

/// FS-LLM's keys that mean nothing here (accepted, with a line saying what is used instead), and those of
/// features that this version does not have (a mistake for Config::report() unless they are off).
void accept_fs_llm_keys(Config& config);

/// docs/config.md: all declared keys, and what becomes of FS-LLM's others.
std::string markdown_of(Config const& declared);
/// The JSON Schema of the same.
std::string schema_of(Config const& declared);

/// `model.type` under `llm.cache.model`, then as a path of its own. Nothing is downloaded; the Error says
/// what to place where.
std::filesystem::path resolve_model(RunConfig const& config);

RunDirectory run_directory(RunConfig const& config);

/// OpenMP threads of this rank: hpc.threads, or one under exact reduction, else its cores.
int threads_per_rank(RunConfig const& config);

/// auto, True or False, of the spellings of YAML.
std::string parse_use_gpu(std::string const& given, std::string const& place);

/// Where this rank computes, and how its updates travel.
struct DevicePlan {
  std::string device = "cpu";  ///< "cpu" or "cuda:1"
  int gpu = -1;
  bool nccl = false;       ///< every rank has a GPU of its own
  bool fast_bf16 = false;  ///< multiplies bf16 matrices faster than fp32 ones
};
/// Collective: GPU = local rank modulo the GPUs of the node; the rank is bound to cores of its own, near its
/// GPU. `use_gpu` auto: the CPU where a rank has none; True: an Error there. Two ranks on one GPU are warned
/// of and use host collectives, which NCCL's refusal makes necessary.
DevicePlan choose_device(std::string const& use_gpu, Communicator const& world);

/// Collective: `train.compute_dtype`; auto is decided for all ranks at once: bf16 where the weights are bf16
/// and every rank's device multiplies it fast, fp16 under train.is_enable_half on GPUs, else fp32.
std::string choose_compute_dtype(RunConfig const& config, std::filesystem::path const& model_dir,
                                 DevicePlan const& device, Communicator const& world);

/// Keys whose values differ from those of an older run's config.yaml and would change results; for --resume.
/// A key that is not there had its default.
std::vector<std::string> conflicting_keys(std::string const& old_yaml, Config const& resolved);

}  // namespace fsllm
