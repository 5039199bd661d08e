// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>

#include "fsllm/app/run_config.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {
namespace {

/// A key (or section) of FS-LLM that is not read. `off` lists, separated by '|', the values that ask for
/// nothing; any other value is an Error. Without `off` every value is accepted, and `instead` says what is
/// used; after an Error, which key to use.
struct ForeignKey {
  char const* path;
  char const* off;
  char const* instead;
};

constexpr ForeignKey kForeignKeys[] = {
    // Accepted: how this program does it instead.
    {"backend", "torch", nullptr},
    {"device", nullptr, "the GPU follows from the local rank"},
    {"federate.mode", nullptr, "standalone and distributed are the same run under mpirun"},
    {"federate.share_local_model", nullptr, "one base model a rank is shared by its clients"},
    {"federate.online_aggr", nullptr, "updates are always added as clients finish"},
    {"federate.data_weighted_aggr", nullptr,
     "clients are weighted by training rows unless federate.ignore_weight"},
    {"federate.make_global_eval", nullptr,
     "every client's held-out rows are evaluated and averaged by tokens"},
    {"federate.merge_test_data", nullptr,
     "means over clients are weighted by tokens, which is the merged result"},
    {"federate.merge_val_data", nullptr,
     "means over clients are weighted by tokens, which is the merged result"},
    {"federate.save_to", nullptr, "adapter/ and best/ lie in the run directory"},
    {"federate.save_freq", nullptr, "checkpoint.every_rounds"},
    {"federate.process_num", nullptr, "mpirun -np"},
    {"federate.master_addr", nullptr, "mpirun"},
    {"federate.master_port", nullptr, "mpirun"},
    {"federate.join_in_info", nullptr, "ranks know their clients"},
    {"federate.resource_info_file", nullptr, "costs follow from the shards"},
    {"distribute.use", nullptr, "mpirun"},
    {"distribute.server_host", nullptr, "mpirun"},
    {"distribute.server_port", nullptr, "mpirun"},
    {"distribute.client_host", nullptr, "mpirun"},
    {"distribute.client_port", nullptr, "mpirun"},
    {"distribute.data_file", nullptr, "data.shards"},
    {"distribute.grpc_max_send_message_length", nullptr, "MPI has no limit"},
    {"distribute.grpc_max_receive_message_length", nullptr, "MPI has no limit"},
    {"distribute.grpc_enable_http_proxy", nullptr, "MPI"},
    {"distribute.grpc_compression", nullptr, "federate.transforms"},
    {"dataloader.pin_memory", nullptr, "shards are read whole"},
    {"data.args", nullptr, "data.* keys"},
    {"data.file_path", nullptr, "data.root"},
    {"data.cache_dir", nullptr, "data.shards"},
    {"data.consistent_label_distribution", nullptr,
     "validation and test rows follow the client's training split"},
    {"data.server_holds_all", nullptr, "server.h5 holds the held-out rows"},
    {"eval.metrics", nullptr, "the mean loss per target token"},
    {"eval.report", nullptr, "per-client values and the token-weighted mean"},
    {"eval.count_flops", nullptr, "tokens per second"},
    {"eval.monitoring", nullptr, "metrics.jsonl"},
    {"criterion", nullptr, "cross-entropy over target tokens"},
    {"llm.chat", nullptr, "chat is a program of its own"},
    {"cfg_file", nullptr, "--cfg"},
    {"expname_tag", nullptr, "expname"},
    {"print_decimal_digits", nullptr, "metrics.jsonl holds all digits"},
    {"check_completeness", nullptr, "ranks agree by construction"},
    {"verbose", nullptr, "the log level"},
    {"wandb.name_user", nullptr, "metrics.jsonl"},
    {"wandb.name_project", nullptr, "metrics.jsonl"},
    // Features of FS-LLM that this version does not have.
    {"federate.use_diff", "False", nullptr},
    {"federate.use_ss", "False", nullptr},
    {"federate.restore_from", "", nullptr},
    {"federate.save_client_model", "False", nullptr},
    {"federate.transforms", "[]", nullptr},
    {"federate.exchange", "", nullptr},
    {"trainer.sam", nullptr, "nothing for this trainer"},
    {"trainer.local_entropy", nullptr, "nothing for this trainer"},
    {"train.data_para_dids", "[]", nullptr},
    {"finetune.freeze_param", "", nullptr},
    {"finetune.scheduler.type", "", nullptr},
    {"finetune.scheduler", nullptr, "finetune.optimizer.lr, which stays as it is"},
    {"llm.accelation.use", "False", "llm.deepspeed.use"},  // FS-LLM's README says so, its code does not
    {"llm.accelation", nullptr, "llm.deepspeed.use, llm.deepspeed.ds_config"},
    {"personalization.share_non_trainable_para", "False", nullptr},
    {"fedprox.use", "False", nullptr},
    {"fedprox", nullptr, "nothing while fedprox.use is False"},
    {"nbafl.use", "False", nullptr},
    {"nbafl", nullptr, "nothing while nbafl.use is False"},
    {"quantization.method", "none", nullptr},
    {"quantization", nullptr, "nothing while quantization.method is none"},
    {"aggregator.robust_rule", "fedavg", nullptr},
    {"aggregator", nullptr, "nothing while aggregator.robust_rule is fedavg"},
    {"hpo.fedex.flatten_ss", nullptr, "a distribution for each key of hpo.fedex.ss"},
    {"hpo.fedex.pi_lr", nullptr, "nothing without hpo.fedex.psn"},
    {"hpo.fedex.psn", "False", nullptr},
    {"hpo.scheduler", nullptr, "nothing in a single run"},
    {"hpo.num_workers", nullptr, "nothing in a single run"},
    {"hpo.init_cand_num", nullptr, "nothing in a single run"},
    {"hpo.ss", nullptr, "nothing in a single run"},
    {"hpo.metric", nullptr, "nothing in a single run"},
    {"hpo.working_folder", nullptr, "nothing in a single run"},
    {"hpo.trial_index", nullptr, "nothing in a single run"},
    {"hpo.larger_better", nullptr, "nothing in a single run"},
    {"hpo.log_scale", nullptr, "nothing in a single run"},
    {"hpo.plot_interval", nullptr, "nothing in a single run"},
    {"hpo.sha", nullptr, "nothing in a single run"},
    {"hpo.pbt", nullptr, "nothing in a single run"},
    {"hpo.table", nullptr, "nothing in a single run"},
    {"hpo.fts", nullptr, "nothing in a single run"},
    {"hpo.pfedhpo", nullptr, "nothing in a single run"},
    {"wandb.use", "False", nullptr},
    {"wandb", nullptr, "metrics.jsonl"},
    {"dp.mode", "none", nullptr},
    {"secagg.scheme", "none", nullptr},
    {"attack.attack_method", "", nullptr},
    {"attack", nullptr, "nothing while attack.attack_method is empty"},
    {"vertical.use", "False", nullptr},
    {"vertical", nullptr, "nothing while vertical.use is False"},
    {"sgdmf.use", "False", nullptr},
    {"sgdmf", nullptr, "nothing while sgdmf.use is False"},
    {"feat_engr.type", "", nullptr},
    {"feat_engr", nullptr, "nothing while feat_engr.type is empty"},
    {"regularizer.type", "", nullptr},
    {"regularizer", nullptr, "nothing while regularizer.type is empty"},
};

bool is_off(std::string const& value, std::string const& off) {
  std::istringstream choices(off);
  for (std::string choice; std::getline(choices, choice, '|');)
    if (lower_case(value) == lower_case(choice)) return true;
  return off.empty() && value.empty();
}

/// A key, or a section with one, that this version reads.
bool is_declared(std::vector<KeyInfo> const& declared, std::string const& path) {
  return std::any_of(declared.begin(), declared.end(), [&](KeyInfo const& key) {
    return key.path == path || key.path.starts_with(path + ".");
  });
}

void add_unread(std::vector<std::pair<std::string, std::vector<std::string>>>& unread,
                ForeignKey const& key) {
  auto const same =
      std::find_if(unread.begin(), unread.end(), [&](auto const& one) { return one.first == key.instead; });
  if (same == unread.end())
    unread.push_back({key.instead, {key.path}});
  else
    same->second.emplace_back(key.path);
}

}  // namespace

std::string markdown_of(Config const& declared) {
  std::string text =
      "# Configuration keys\n\nMade by `fsllm_hpc --print-markdown > docs/config.md`; a test holds it to the "
      "program. Values are YAML; `KEY VALUE` on the command line goes before the file.\n" +
      declared.markdown() +
      "\n## FS-LLM's keys that are not read\n\nThey are accepted. Where a value is named as off, another one "
      "asks for a feature that is not available in this version, and is an error.\n\n"
      "| key or section | off | instead |\n|---|---|---|\n";
  for (auto const& key : kForeignKeys) {
    if (is_declared(declared.keys(), key.path)) continue;
    auto off = std::string(key.off == nullptr ? "" : *key.off == '\0' ? "''" : key.off);
    std::replace(off.begin(), off.end(), '|', ',');
    text += fmt::format("| `{}` | {} | {} |\n", key.path, off, key.instead == nullptr ? "" : key.instead);
  }
  return text;
}

std::string schema_of(Config const& declared) {
  auto const keys = declared.keys();
  std::vector<AcceptedKey> accepted;
  for (auto const& key : kForeignKeys) {
    if (is_declared(keys, key.path)) continue;
    AcceptedKey one{key.path, std::nullopt};
    if (key.off != nullptr) {
      std::istringstream choices(key.off);
      one.values.emplace();
      for (std::string choice; std::getline(choices, choice, '|');) one.values->push_back(choice);
      if (one.values->empty()) one.values->emplace_back();
    }
    accepted.push_back(one);
  }
  return declared.json_schema(accepted);
}

void accept_fs_llm_keys(Config& config) {
  std::vector<std::pair<std::string, std::vector<std::string>>> unread;  // what is used instead, keys
  auto const declared = config.keys();
  for (auto const& key : kForeignKeys) {
    if (!config.has(key.path) || is_declared(declared, key.path)) continue;
    config.accept_all_under(key.path);
    if (key.off == nullptr) {
      add_unread(unread, key);
      continue;
    }
    config.part([&] {
      auto const value = config.text(key.path);
      FSLLM_CHECK(value && is_off(*value, key.off),
                  "{} = {} is not available in this version{}. Set it to {}, or leave it out.",
                  config.where(key.path), value.value_or("(a section)"),
                  key.instead == nullptr ? "" : fmt::format(" (use {})", key.instead),
                  *key.off == '\0' ? "''" : key.off);
    });
  }
  std::string lines;
  for (auto const& [instead, keys] : unread)
    lines += fmt::format("\n  {}: {}", fmt::join(keys, ", "), instead);
  if (!unread.empty()) log_info("keys of FS-LLM that are not read, and what is used instead:{}", lines);
}

}  // namespace fsllm
