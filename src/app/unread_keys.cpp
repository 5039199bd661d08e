// SPDX-License-Identifier: Apache-2.0
#include "unread_keys.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "fsllm/core/names.hpp"

namespace fsllm {
namespace {

/// Keys that some methods (rules, splitters, templates) read, and the others do not.
struct ReadBy {
  char const* key;
  std::vector<std::string> readers;
};

void leave_to_readers(Config& config, std::string const& chosen, std::vector<ReadBy> const& keys) {
  for (auto const& [key, readers] : keys)
    if (std::find(readers.begin(), readers.end(), chosen) == readers.end()) config.leave_out(key);
}

void leave_out_federations(RunConfig const& run, Config& config) {
  auto const& fed = run.fed;
  auto const& method = fed.method;
  auto const without = [&](char const* section, bool used) {
    if (!used) config.leave_out(section);
  };
  auto const asked = [&](char const* key) {
    auto const text = lower_case(config.text(key).value_or(""));
    return text == "true" || text == "yes" || text == "on";
  };
  without("fedopt", asked("fedopt.use") || method == "fedopt" || method == "diloco");
  without("fedprox", asked("fedprox.use") || method == "fedprox");
  without("fedswa", asked("fedswa.use"));
  without("asyn", fed.asyn.use);
  without("hpo", asked("hpo.fedex.use"));
  without("finetune", fed.finetune.has_value());
  without("distribute", false);
  without("early_stop.delta", fed.selection.patience > 0);
  without("early_stop.improve_indicator_mode", fed.selection.patience > 0);
  leave_to_readers(config, method,
                   {{"personalization.regular_weight", {"ditto", "pfedme"}},
                    {"personalization.lr", {"ditto", "pfedme"}},
                    {"personalization.local_update_steps", {"ditto"}},
                    {"personalization.K", {"pfedme"}},
                    {"personalization.beta", {"pfedme"}},
                    {"personalization.epoch_linear", {"fedrep"}},
                    {"personalization.epoch_feature", {"fedrep"}},
                    {"personalization.lr_linear", {"fedrep"}},
                    {"personalization.lr_feature", {"fedrep"}},
                    {"personalization.weight_decay", {"fedrep"}},
                    {"model.model_num_per_trainer", {"fedem"}}});
  leave_to_readers(config, fed.algorithm.lora_rule,
                   {{"federate.lora_svd_every", {"fedsvd"}},
                    {"federate.lora_oversampling", {"fedask"}},
                    {"federate.lora_energy", {"flexlora"}}});
  leave_to_readers(config, config.text("aggregator.robust_rule").value_or("fedavg"),
                   {{"aggregator.byzantine_node_num", {"krum", "bulyan"}},
                    {"aggregator.BFT_args.krum_agg_num", {"krum"}},
                    {"aggregator.BFT_args.trimmedmean_excluded_ratio", {"trimmedmean"}},
                    {"aggregator.BFT_args.normbounding_norm_bound", {"normbounding"}}});
  leave_to_readers(config, config.text("federate.sampler").value_or("uniform"),
                   {{"federate.sampler_candidates", {"power_of_choice"}}});
}

void leave_out_training(RunConfig const& run, Config& config) {
  auto const without = [&](std::vector<char const*> const& keys, bool used) {
    for (auto const* key : keys)
      if (!used) config.leave_out(key);
  };
  auto const& schedule = run.train.schedule.type;
  without({"train.scheduler"}, !schedule.empty());
  without({"train.scheduler.warmup_type", "train.scheduler.warmup_min_ratio", "train.scheduler.cos_min_ratio",
           "train.scheduler.total_steps"},
          schedule.starts_with("Warmup"));
  without({"train.loss_scale", "train.loss_scale_window", "train.loss_scale_hysteresis",
           "train.initial_scale_power"},
          run.half || run.compute_dtype == "fp16");
  without({"train.zo_eps"}, run.train.zeroth_order());
  without({"llm.reward_coeff"}, run.data.pairs);
  without({"trainer"}, false);
}

}  // namespace

void leave_out_unread(RunConfig const& run, Config& config) {
  auto const without = [&](std::vector<char const*> const& keys, bool used) {
    for (auto const* key : keys)
      if (!used) config.leave_out(key);
  };
  leave_out_federations(run, config);
  leave_out_training(run, config);
  without({"llm.adapter"}, !run.peft.method.empty());
  without({"llm.offsite_tuning"}, run.offsite.use);
  without({"llm.offsite_tuning.emu_align"}, run.offsite.align.use);
  without({"llm.deepspeed", "llm.cache", "llm.added_tokens", "hpc.shard_roots"}, false);
  without({"hpc.zero_stage", "hpc.offload"}, run.group.ranks > 1);
  without({"eval.task_data", "eval.task_freq", "eval.task_limit", "eval.task_shots"},
          !run.tasks.names.empty());
  leave_to_readers(config, run.data.splitter,
                   {{"data.splitter_args[0].alpha", {"lda", "inner_dirichlet"}},
                    {"data.splitter_args[0].min_size", {"lda"}},
                    {"data.splitter_args[0].field", {"natural"}},
                    {"data.splitter_args[0].classes", {"pathological"}},
                    {"data.splitter_args[0].distribution", {"quantity"}},
                    {"data.splitter_args[0].spread", {"quantity"}}});
  leave_to_readers(config, run.data.prompt.name,
                   {{"data.custom_template", {"custom"}},
                    {"data.chat_template", {"model"}},
                    {"data.template_date", {"model"}}});
}

}  // namespace fsllm
