// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/run_config.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/core/paths.hpp"
#include "public_name.hpp"
#include "run_config_checks.hpp"
#include "unread_keys.hpp"

namespace fsllm {
namespace {

/// The server's file beside a client's, by FS-LLM's names: llama_client.yaml → llama_server.yaml.
std::string server_file(std::string const& client_place) {
  std::filesystem::path const client = client_place.substr(0, client_place.find(':'));
  auto name = client.filename().string();
  if (auto const at = name.find("client"); at != std::string::npos) name.replace(at, 6, "server");
  auto const server = client.parent_path() / name;
  return server != client && std::filesystem::exists(server) ? server.string() : "server.yaml";
}

bool given_as_true(Config const& config, std::string const& key) {
  auto const text = config.text(key).value_or("");
  return text == "True" || text == "true";
}

void check_role(Config& config) {
  auto const role = config.get("distribute.role", "server",
                               "Role of FS-LLM's distributed configurations; only the server's file is run.",
                               one_of({"server", "client"}));
  bool const distributed =
      config.text("federate.mode").value_or("") == "distributed" || given_as_true(config, "distribute.use");
  auto const place = config.where("distribute.role");
  FSLLM_CHECK(
      !(distributed && role == "client"),
      "{} = client (MPI starts the clients; there is nothing to run for this file). Run the server's "
      "file instead: mpirun -np N fsllm_hpc --cfg {}, and give per-client settings with --client_cfg.",
      place, server_file(place));
}

void check_threads(Config const& config, std::string const& threads) {
  int value = 0;
  auto const [end, error] = std::from_chars(threads.data(), threads.data() + threads.size(), value);
  bool const number =
      error == std::errc() && end == threads.data() + threads.size() && value >= 1 && value <= 4096;
  FSLLM_CHECK(threads == "auto" || number, "{} = '{}' (must be auto or a number from 1). Change it.",
              config.where("hpc.threads"), threads);
}

}  // namespace

std::string parse_use_gpu(std::string const& given, std::string const& place) {
  auto const lower = lower_case(given);
  if (lower == "auto") return "auto";
  if (lower == "true" || lower == "yes" || lower == "on") return "True";
  if (lower == "false" || lower == "no" || lower == "off") return "False";
  fail(fmt::format("{} = '{}' (must be auto, True or False). Change it.", place, given));
}

namespace {

std::string default_name(RunConfig const& run) {
  auto model = std::filesystem::path(run.model_type.substr(0, run.model_type.find('@'))).filename().string();
  auto const data =
      run.data.shards.empty() ? run.data.type() : std::filesystem::path(run.data.shards).filename().string();
  auto name = fmt::format("{}_{}_on_{}", run.fed.method, model, data);
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isspace(c) || c == '/' || c == '@'; }, '_');
  return name;
}

/// Keys that belong to no other module.
void load_own_keys(Config& config, RunConfig& run) {
  run.outdir = get_path(config, "outdir", "exp", "Folder of all run directories.");
  run.expname =
      config.get("expname", "", "Name of this run's directory; '' makes one from method, model and data.");
  run.model_type = get_path(
      config, "model.type", "",
      "NAME@huggingface_llm under llm.cache.model or in the cache of the Hugging Face hub (HF_HUB_CACHE, "
      "HF_HOME), a folder in Hugging Face layout, or a .gguf file.");
  run.model_cache = get_path(config, "llm.cache.model", "",
                             "Folder that holds models by name, or a cache of the Hugging Face hub.");
  run.threads =
      config.get("hpc.threads", "auto", "OpenMP threads a rank; auto: 1 under exact reduction on CPU.");
  check_threads(config, run.threads);
  run.shard_roots = get_paths(config, "hpc.shard_roots",
                              "Folders of ready shards that only their own rank opens: the i-th is that of "
                              "rank i, or a single path that every host has for itself.");
  run.stall_warning_s = config.get("hpc.stall_warning_s", run.stall_warning_s,
                                   "A rank for which the others have waited this long is named in a warning, "
                                   "with what it does; 0: never.",
                                   at_least(0.0));
  auto const use_gpu = config.get(
      "use_gpu", "auto",
      "auto: GPUs where every rank has one, else the CPU; True: GPUs, or an error; False: the CPU.");
  run.use_gpu = parse_use_gpu(use_gpu, config.where("use_gpu"));
  run.half =
      config.get("train.is_enable_half", false,
                 "Keep frozen weights in fp16, and compute in it on GPUs (train.compute_dtype: auto); what "
                 "is trained and the optimiser stay fp32.");
  run.stage_dir = get_path(config, "hpc.stage_dir", "",
                           "Folder of the node's own disk, say, for weights: converted ones (GGUF, another "
                           "storage type), and copies of those that lie on another file system; kept for "
                           "the next run; empty: converted ones in outdir/converted_weights, no copies.");
  run.time_limit_margin = config.get(
      "hpc.time_limit_margin_s", 120.0,
      "Seconds before the end of the batch job at which training stops, with a checkpoint and exit code "
      "85; at most a quarter of the time that the job has left at the start.",
      at_least(0.0));
  run.storage_dtype = config.get(
      "train.storage_dtype", "auto",
      "Type of frozen weights in memory; auto: as in the file, or the half type that train.compute_dtype "
      "names where an adapter is trained. int8 and nf4 quantise the projections of the blocks as LLM.int8() "
      "and QLoRA do (nf4: 4.13 bits a value); embeddings and head are halves then.",
      one_of({"auto", "fp32", "bf16", "fp16", "int8", "nf4"}));
  run.compute_dtype = config.get("train.compute_dtype", "auto",
                                 "Type of activations and GEMMs; auto: fp32, or bf16 where weights are bf16 "
                                 "and the device of every rank multiplies bf16 fast; decided once for a run. "
                                 "bf16 may be written for fp32 files too: losses stay within 0.3 % (200 "
                                 "steps, docs/RESULTS.md). fp16 trains with a loss scale "
                                 "(train.loss_scale).",
                                 one_of({"auto", "fp32", "bf16", "fp16"}));
  run.checkpointing = parse_checkpointing(config.get(
      "train.activation_checkpointing", "none",
      "What the backward pass computes again instead of keeping it, to the same bits: block: all of a block "
      "but its input; selective: norms, activations, masks of dropout and attention itself, while what "
      "other matrix products gave is kept.",
      one_of({"none", "block", "selective"})));
  run.frozen_rows_bytes =
      config.get<int64_t>(
          "train.frozen_activations_mb", 0,
          "MiB of a rank's memory for what leaves the blocks below the first one that learns, row by row: "
          "they "
          "run once a row, not in every epoch, round and evaluation. 0: they run each time. For adapters on "
          "upper blocks alone (layers_to_transform); a row takes its tokens times hidden_size values.",
          at_least(0))
      << 20;
  check_role(config);
  config.get("llm.deepspeed.use", false,
             "Take settings from DeepSpeed's JSON (docs/DEEPSPEED.md). What it says stands in the run's "
             "config.yaml as keys of this program, and this as False.");
  get_path(config, "llm.deepspeed.ds_config", "",
           "The JSON file: from the working directory, or else beside the YAML.");
}

void load_base_model_name(Config& config, RunConfig& run) {
  run.base_model_name =
      config.get("llm.adapter.base_model_name", "",
                 "The base model's public name in adapter_config.json and the model card, as others find it: "
                 "OWNER/NAME. '': what the model's files say, else the name of its folder.");
  FSLLM_CHECK(run.base_model_name.empty() || is_hub_name(run.base_model_name),
              "{} = '{}' (a name of the form OWNER/NAME or NAME is needed, not a path). Change it.",
              config.where("llm.adapter.base_model_name"), run.base_model_name);
}

/// Takes the places of "auto" and '' where other keys tell what they mean.
void derive(RunConfig& run) {
  if (run.half && run.storage_dtype == "auto") run.storage_dtype = "fp16";
  bool const half_products = run.compute_dtype == "bf16" || run.compute_dtype == "fp16";
  if (half_products && run.storage_dtype == "auto" && !run.peft.method.empty() && !run.offsite.use)
    run.storage_dtype = run.compute_dtype;  // products would convert every weight in each pass
  if (run.expname.empty()) run.expname = default_name(run);
  if (run.offsite.use && run.fed.reduce == "auto") run.fed.reduce = "exact";  // parts of a model, as adapters
}

}  // namespace

Config all_keys() {
  auto config = Config::parse("model: {type: none}\nfederate: {client_num: 1}\nllm: {adapter: {use: True}}\n",
                              "defaults");
  load_run_config(config);
  return config;
}

RunConfig load_run_config(Config& config) {
  RunConfig run;
  config.part([&] { load_own_keys(config, run); });
  config.part([&] { run.data = load_data_config(config); });
  config.part([&] { run.peft = load_peft_config(config); });
  config.part([&] { load_base_model_name(config, run); });
  config.part([&] { run.train = load_train_config(config); });
  config.part([&] { run.fed = load_fed_config(config); });
  config.part([&] { run.group = load_group_config(config); });
  config.part([&] { run.offsite = load_offsite_config(config); });
  config.part([&] { run.tasks = load_run_tasks(config, run.data.root); });
  if (config.was_cut_short()) config.declare_as(all_keys());
  accept_fs_llm_keys(config);
  config.finish();
  derive(run);
  check_parts(run, config);
  leave_out_unread(run, config);
  return run;
}

namespace {

/// r and lora_alpha that a client has instead of the run's.
std::optional<ClientRank> load_client_rank(Config& own, PeftConfig const& peft) {
  std::string const adapter = "llm.adapter.args[0]";
  auto const keys = own.given_keys();
  if (std::none_of(keys.begin(), keys.end(), [&](auto const& key) { return key.starts_with(adapter); }))
    return {};
  auto const size = low_rank_size(peft);
  FSLLM_CHECK(
      size,
      "--client_cfg: {} (by client only the r and lora_alpha of a LoRA may differ that has one rank for "
      "all modules). Leave llm.adapter out.",
      own.where(adapter));
  LowRankSize const mine{
      own.get(adapter + ".r", size->rank, "LoRA rank of this client.",
              within(1, static_cast<double>(size->rank))),
      own.get(adapter + ".lora_alpha", size->alpha, "lora_alpha of this client.", more_than(0)),
      size->rank_stabilised};
  own.get(adapter + ".adapter_package", "peft", "As the run's.");
  own.get(adapter + ".adapter_method", "lora", "As the run's.", one_of({"lora"}));
  ClientRank const rank{mine.rank, mine.scale() / size->scale()};
  if (rank.rank == size->rank && rank.scale == 1) return {};
  return rank;
}

}  // namespace

std::map<int64_t, ClientConfig> load_client_configs(Config const& base, Config const& clients,
                                                    PeftConfig const& peft) {
  std::map<int64_t, ClientConfig> configs;
  auto of_run = base;
  auto const loss = load_loss(of_run);
  for (auto const& name : clients.children("")) {
    int64_t client = 0;
    auto const digits = name.starts_with("client_") ? name.substr(7) : "";
    auto const [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), client);
    FSLLM_CHECK(error == std::errc() && end == digits.data() + digits.size() && client >= 1,
                "--client_cfg: '{}' is not a client (names are client_1, client_2, ...). Rename it.", name);
    FSLLM_CHECK(
        !clients.text(name) && clients.list_size(name) == 0,
        "{} is no map (keys of training are needed below a client's name). Write {}: {{train: {{...}}}}.",
        clients.where(name), name);
    auto const own = clients.below(name);
    Config declared = own;  // no other key may differ by client
    load_train_config(declared);
    auto const rank = load_client_rank(declared, peft);
    declared.finish();
    Config merged = base.overridden_by(own);
    auto const train = load_train_config(merged);
    FSLLM_CHECK(train.loss == loss,
                "--client_cfg: client {} has train.loss = {} (that of the run is {}: all learn "
                "from the same kind of rows). Leave it out.",
                client, name_of(train.loss), name_of(loss));
    FSLLM_CHECK(configs.emplace(client, ClientConfig{train, rank}).second,
                "--client_cfg: client {} stands twice. Keep one of them.", client);
  }
  return configs;
}

RunDirectory run_directory(RunConfig const& run) {
  return {std::filesystem::path(run.outdir) / run.expname};
}

std::vector<std::string> conflicting_keys(std::string const& old_yaml, Config const& resolved) {
  // What may change between a run and its continuation without changing results up to the checkpoint.
  static std::vector<std::string> const free{"outdir",
                                             "expname",
                                             "hpc.threads",
                                             "hpc.stage_dir",
                                             "checkpoint.every_rounds",
                                             "checkpoint.keep_last",
                                             "federate.total_round_num",
                                             "llm.cache.model",
                                             "llm.adapter.base_model_name",
                                             "hpc.server_trains",
                                             "hpc.ranks_per_client",
                                             "hpc.zero_stage",
                                             "hpc.offload",
                                             "hpc.stall_warning_s",
                                             "eval.tasks",
                                             "eval.task_data",
                                             "eval.task_limit",
                                             "eval.task_shots",
                                             "eval.task_freq",
                                             "train.activation_checkpointing",
                                             "llm.offsite_tuning.emu_align.exit_after_align"};
  auto const before = Config::parse(old_yaml, "config.yaml of the run directory"),
             now = Config::parse(resolved.dump(), "configuration");
  std::map<std::string, std::optional<std::string>> defaults;
  for (auto const& key : resolved.keys()) defaults[key.path] = key.default_value();
  std::vector<std::string> conflicts;
  for (auto const& key : now.given_keys()) {
    if (std::find(free.begin(), free.end(), key) != free.end()) continue;
    // A key that came with a later version of the program.
    if (!before.has(key) && now.text(key) == defaults[key]) continue;
    if (before.text(key) != now.text(key))
      conflicts.push_back(fmt::format("{} ({} before, {} now)", key, before.text(key).value_or("absent"),
                                      now.text(key).value_or("absent")));
  }
  return conflicts;
}

}  // namespace fsllm
