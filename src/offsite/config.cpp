// SPDX-License-Identifier: Apache-2.0
#include "fsllm/offsite/config.hpp"

#include <fmt/ranges.h>

#include <cmath>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "fsllm/core/paths.hpp"

namespace fsllm {
namespace {

std::string const kOffsite = "llm.offsite_tuning.";
std::string const kAlign = kOffsite + "emu_align.";

void load_align_data(Config& config, AlignConfig& align) {
  align.data_root = get_path(config, kAlign + "data.root", "data", "Folder of the server's own data files.");
  align.data_type = get_path(config, kAlign + "data.type", "",
                             "The server's own data set, as in data.type; empty: the rows for validation "
                             "(without those: for tests) that data.splits hold back.");
  align.splits =
      config.get(kAlign + "data.splits", align.splits,
                 "Shares of it for training, for the losses before and after, and unused.", within(0, 1));
  double const sum = std::accumulate(align.splits.begin(), align.splits.end(), 0.0);
  FSLLM_CHECK(align.splits.size() == 3 && std::abs(sum - 1) < 1e-6 && align.splits[0] > 0,
              "{} = {} (three shares that add up to 1 are needed, the first above 0). Correct it.",
              config.where(kAlign + "data.splits"), align.splits);
}

AlignConfig load_align_config(Config& config) {
  AlignConfig align;
  align.use = config.get(kAlign + "use", false,
                         "Distil the middle blocks of the emulator from the full model before the first "
                         "round, at the server.");
  align.restore_from = get_path(config, kAlign + "restore_from", "",
                                "File of save_to: where it is there, its blocks are taken instead.");
  align.save_to = get_path(config, kAlign + "save_to", "", "File for the distilled blocks.");
  align.exit_after = config.get(kAlign + "exit_after_align", false, "End after the distillation.");
  align.every_round = !config.get(kAlign + "initial_only", true,
                                  "False: distil again after every round, for the blocks as they are trained "
                                  "then (FedBiOT, Wu et al. 2024); clients get the new middle blocks.");
  load_align_data(config, align);
  align.steps =
      config.get(kAlign + "train.local_update_steps", align.steps, "Steps (or epochs) of it.", at_least(1));
  align.epochs = config.get(kAlign + "train.batch_or_epoch", "batch", "What local_update_steps counts.",
                            one_of({"batch", "epoch"})) == "epoch";
  align.lm_weight = config.get(kAlign + "train.lm_loss_weight", align.lm_weight,
                               "Weight of the emulator's cross-entropy.", at_least(0));
  align.kd_weight = config.get(kAlign + "train.kd_loss_weight", align.kd_weight,
                               "Weight of the distance between what leaves the middle blocks and what leaves "
                               "those of the full model.",
                               at_least(0));
  align.kl_weight = config.get(
      kAlign + "train.kl_loss_weight", align.kl_weight,
      "Weight of the divergence KL(full model, emulator) of the next token, a target.", at_least(0));
  align.initial =
      config.get(kAlign + "train.initial_update_rounds", align.initial,
                 "How many times local_update_steps are taken before the first round.", at_least(1));
  align.optimizer = load_optimizer_config(config, kAlign + "train.optimizer", {.lr = 0.01});
  FSLLM_CHECK(
      !align.use || align.lm_weight + align.kd_weight + align.kl_weight > 0,
      "{} = 0 with kd_loss_weight = 0 and kl_loss_weight = 0 (nothing would be learnt). Set one of them "
      "above 0.",
      config.where(kAlign + "train.lm_loss_weight"));
  return align;
}

/// Keys `strategy` and `kwargs`; the strategy.
std::string load_strategy(Config& config, OffsiteConfig& offsite) {
  auto const strategy = config.get(
      kOffsite + "strategy", "drop_layer",
      "How the emulator is made: drop_layer leaves blocks out, distillation does and has "
      "emu_align.use, pruning makes small weights of the middle blocks 0, quantization keeps these "
      "blocks in 8 or 4 bits.",
      one_of({"drop_layer", "distillation", "pruning", "quantization"}));
  bool const prunes = strategy == "pruning", quantizes = strategy == "quantization";
  FSLLM_CHECK(config.list_size(kOffsite + "kwargs") <= 1,
              "{} has {} entries (one emulator is made). Leave one.", config.where(kOffsite + "kwargs"),
              config.list_size(kOffsite + "kwargs"));
  auto const key = kOffsite + "kwargs[0].";
  offsite.drop_ratio =
      config.get(key + "drop_ratio", prunes || quantizes ? 0.0 : offsite.drop_ratio,
                 "Share of the middle blocks that is left out; with the strategies pruning and quantization "
                 "0 by default.",
                 within_open(0, 1));
  offsite.sparsity = config.get(key + "sparsity", prunes ? 0.5 : 0.0,
                                "Share of the weights of each output of the middle blocks' matrices that "
                                "becomes 0; with strategy pruning 0.5 by default.",
                                within_open(0, 1));
  FSLLM_CHECK(prunes || offsite.sparsity == 0,
              "{} = {} (llm.offsite_tuning.strategy is {}, which prunes nothing). Set that to pruning, or "
              "leave this out.",
              config.where(key + "sparsity"), offsite.sparsity, strategy);
  auto const bits = config.get(key + "bits", int64_t{quantizes ? 8 : 0},
                               "Strategy quantization: 8 (int8, a scale an output; the default) or 4 (NF4) "
                               "bits a weight of the middle blocks' matrices.",
                               at_least(0));
  FSLLM_CHECK(!quantizes || bits == 8 || bits == 4,
              "{} = {} (matrices are kept in 8 or 4 bits). Set it to one of them.",
              config.where(key + "bits"), bits);
  FSLLM_CHECK(
      quantizes || bits == 0,
      "{} = {} (llm.offsite_tuning.strategy is {}, which quantises nothing). Set that to quantization, "
      "or leave this out.",
      config.where(key + "bits"), bits, strategy);
  if (quantizes) offsite.quantization = bits == 8 ? Quantization::int8 : Quantization::nf4;
  return strategy;
}

}  // namespace

OffsiteConfig load_offsite_config(Config& config) {
  OffsiteConfig offsite;
  offsite.use = config.get(kOffsite + "use", false,
                           "Clients train the outer blocks of an emulator of the model, whose weights stay "
                           "at rank 0 (docs/OFFSITE.md).");
  auto const strategy = load_strategy(config, offsite);
  offsite.emu_l = config.get(kOffsite + "emu_l", offsite.emu_l,
                             "Blocks before this one are trained (at least the first).", at_least(0));
  offsite.emu_r = config.get(kOffsite + "emu_r", offsite.emu_r,
                             "Blocks from this one on are trained (at least the last).", at_least(0));
  offsite.judges_full = config.get(kOffsite + "eval_type", "emu",
                                   "What losses are computed with: the emulator (emu), or the full model "
                                   "with the trained blocks, at rank 0 (full).",
                                   one_of({"emu", "full"})) == "full";
  offsite.align = load_align_config(config);
  FSLLM_CHECK(
      !offsite.use || offsite.align.use || strategy != "distillation",
      "{} = distillation (llm.offsite_tuning.emu_align.use is False: nothing would be distilled). Set "
      "that to True.",
      config.where(kOffsite + "strategy"));
  FSLLM_CHECK(
      offsite.align.use || !offsite.align.every_round,
      "{} = False (llm.offsite_tuning.emu_align.use is False: nothing is distilled). Set that to True.",
      config.where(kAlign + "initial_only"));
  FSLLM_CHECK(offsite.use || !offsite.align.use,
              "{} = True (llm.offsite_tuning.use is False: there is no emulator). Set that to True, or leave "
              "this out.",
              config.where(kAlign + "use"));
  return offsite;
}

}  // namespace fsllm
