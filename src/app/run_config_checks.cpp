// SPDX-License-Identifier: Apache-2.0
#include "run_config_checks.hpp"

#include <algorithm>
#include <filesystem>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// Baselines of one client: federate.method global, local, or a single chosen client.
void check_federation(RunConfig const& run, Config const& config) {
  auto const& fed = run.fed;
  FSLLM_CHECK(
      !run.data.shards.empty() || !run.shard_roots.empty() || fed.client_num > 0 ||
          run.data.splitter == "natural" || run.data.splitter == "by_file",
      "{} = {} (the number of clients is needed to shard {}). Set it, or give ready shards with data.shards.",
      config.where("federate.client_num"), fed.client_num, run.data.type());
  FSLLM_CHECK(fed.client_num == 0 || fed.only_client <= fed.client_num,
              "{} = {} (there are {} clients). Choose one of them.",
              config.where("federate.client_idx_for_local_train"), fed.only_client, fed.client_num);
  FSLLM_CHECK(fed.client_num == 0 || fed.sample_client_num <= fed.client_num || fed.sample_client_rate > 0,
              "{} = {} (only {} clients, federate.client_num). Lower it.",
              config.where("federate.sample_client_num"), fed.sample_client_num, fed.client_num);
}

/// What ranks that train a client together cannot do.
void check_group(RunConfig const& run, Config const& config) {
  if (run.group.ranks == 1) return;
  bool const adapter = !run.peft.method.empty();
  bool const has_parts = run.group.stage > 0 && !adapter;
  auto const& algorithm = run.fed.algorithm;
  auto const refuse = [&](bool refused, std::string const& with, char const* why) {
    FSLLM_CHECK(!refused, "{} with {} ({}). Set hpc.ranks_per_client: 1, or leave that out.",
                config.where("hpc.ranks_per_client"), with, why);
  };
  refuse(run.train.zeroth_order(), "train.optimizer.type = MeZO", "its two losses are those of one rank");
  refuse(run.train.redraws, "llm.retry_on_nan_loss", "rows would be drawn anew on some ranks only");
  refuse(run.fed.clients_per_pass > 1, "hpc.clients_per_pass", "clients share passes of one rank");
  refuse(algorithm.components > 1, "federate.method = fedem", "it weighs rows by losses of one rank");
  refuse(algorithm.trains_cores, "federate.lora_aggregation = fedsb", "it begins with gradients of one rank");
  refuse(run.fed.asyn.use && run.fed.asyn.real, "asyn.clock = real", "turns end where single ranks are");
  refuse(!run.shard_roots.empty(), "hpc.shard_roots", "a client's shard must be seen by all its ranks");
  refuse(has_parts && algorithm.whole_updates,
         "a method that looks at whole updates and hpc.zero_stage above 0", "no rank has one");
  refuse(adapter && run.group.stage == 3 && quantization_of(run.storage_dtype) != Quantization::none,
         "train.storage_dtype = " + run.storage_dtype + " and hpc.zero_stage = 3",
         "quantised blocks are not partitioned");
}

/// What clients that have an emulator alone cannot do.
void check_offsite(RunConfig const& run) {
  if (!run.offsite.use) return;
  auto const refuse = [](bool refused, std::string const& with, char const* why) {
    FSLLM_CHECK(!refused, "llm.offsite_tuning.use = True with {} ({}). Leave one of them out.", with, why);
  };
  auto const& algorithm = run.fed.algorithm;
  bool const full = run.offsite.judges_full;
  refuse(run.group.ranks > 1, fmt::format("hpc.ranks_per_client = {}", run.group.ranks),
         "the ranks of a client share a whole model");
  refuse(algorithm.changes_base, "federate.lora_aggregation = " + algorithm.lora_rule,
         "it changes frozen matrices, which are the owner's");
  auto const& align = run.offsite.align;
  refuse(align.every_round && (run.fed.asyn.use || algorithm.server_extra || algorithm.kind == Kind::none),
         "emu_align.initial_only = False and " +
             (run.fed.asyn.use ? "asyn.use = True" : "federate.method = " + run.fed.method),
         "all clients of a round begin with one emulator, which is all that the server sends beside the "
         "weights");
  refuse(align.every_round && quantization_of(run.storage_dtype) != Quantization::none,
         "emu_align.initial_only = False and train.storage_dtype = " + run.storage_dtype,
         "the middle blocks change");
  refuse(align.every_round && run.offsite.quantization != Quantization::none,
         "strategy = quantization and emu_align.initial_only = False", "the middle blocks change");
  refuse(align.every_round && (run.half || run.compute_dtype == "fp16"),
         "emu_align.initial_only = False and training in fp16", "distillation has no loss scale");
  refuse(full && !run.shard_roots.empty(), "eval_type = full and hpc.shard_roots",
         "the server, which has the full model, may not see the clients' rows");
  refuse(full && (algorithm.personal || algorithm.components > 1 || run.fed.finetune),
         "eval_type = full and a method that judges clients by models of their own",
         "these are parts of emulators");
  refuse(full && run.data.pairs, "eval_type = full and train.loss = " + std::string(name_of(run.train.loss)),
         "its reference is the emulator without adapter");
}

/// A run directory lies below outdir.
void check_name(RunConfig const& run, Config const& config) {
  std::filesystem::path const name = run.expname;
  bool const leaves = name.is_absolute() || run.expname.starts_with('~') || name.lexically_normal() == "." ||
                      std::find(name.begin(), name.end(), "..") != name.end();
  FSLLM_CHECK(
      !leaves,
      "{} = '{}' (it leaves outdir, '{}'). Give a plain name, and set outdir to the folder that is to "
      "hold the run.",
      config.where("expname"), run.expname, run.outdir);
}

/// What keys of different modules may not be together.
void check_together(RunConfig const& run, Config const& config) {
  FSLLM_CHECK(!run.model_type.empty(),
              "model.type is missing (no model to train). Set it to a folder in Hugging Face layout, or to a "
              ".gguf file.");
  FSLLM_CHECK(run.frozen_rows_bytes == 0 || run.train.batch.packing != Packing::shared_prefix,
              "{} with dataloader.packing = shared_prefix (rows that are kept are computed alone). Leave one "
              "of them out.",
              config.where("train.frozen_activations_mb"));
  FSLLM_CHECK(!run.peft.method.empty() || quantization_of(run.storage_dtype) == Quantization::none,
              "{} = {} (quantised weights cannot be trained). Set llm.adapter.use: True, or another type.",
              config.where("train.storage_dtype"), run.storage_dtype);
  FSLLM_CHECK(
      !run.data.pairs || (run.fed.algorithm.components == 1 && !run.fed.algorithm.trains_cores),
      "{} = {} with {} (which {}). Use one of the two.", config.where("train.loss"), name_of(run.train.loss),
      run.fed.algorithm.trains_cores ? "federate.lora_aggregation = fedsb" : "federate.method = fedem",
      run.fed.algorithm.trains_cores ? "begins with the gradients of cross-entropy"
                                     : "weighs rows by how likely they are, one by one");
  FSLLM_CHECK(
      !run.data.pairs || !run.peft.method.empty(),
      "{} = {} (its reference is the model without adapter, and without llm.adapter the model itself is "
      "trained). Set llm.adapter.use: True.",
      config.where("train.loss"), name_of(run.train.loss));
  FSLLM_CHECK(run.shard_roots.empty() || run.data.shards.empty(),
              "{} = {} (hpc.shard_roots names the shards already). Leave one of them out.",
              config.where("data.shards"), run.data.shards);
}

}  // namespace

void check_parts(RunConfig const& run, Config& config) {
  config.part([&] { check_name(run, config); });
  config.part([&] { check_together(run, config); });
  config.part([&] { check_federation(run, config); });
  config.part([&] { check_group(run, config); });
  config.part([&] { check_offsite(run); });
  config.part([&] { check_run_tasks(run, config); });
  config.report();
}

}  // namespace fsllm
