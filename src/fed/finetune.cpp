// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/finetune.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {
namespace {

/// FS-LLM's simple_tuning: epochs of plain SGD on some parameters. FS-LLM draws these anew before, which for
/// factors of an adapter would be to forget it; here they go on from their values.
void read_simple_tuning(Config& config, FineTuning& tuning, bool use) {
  auto const epochs = config.get<int64_t>("finetune.epoch_linear", 10,
                                          "simple_tuning: epochs over the client's rows.", at_least(1));
  double const lr =
      config.get("finetune.lr_linear", 0.005, "simple_tuning: learning rate of its SGD.", more_than(0));
  double const weight_decay =
      config.get("finetune.weight_decay", 0.0, "simple_tuning: weight decay of its SGD.", at_least(0));
  auto const words = config.get<std::vector<std::string>>(
      "finetune.local_param", {}, "simple_tuning: words; parameters whose name contains one are trained.");
  if (!use) return;
  FSLLM_CHECK(
      !words.empty(),
      "{} = True (finetune.local_param names no parameters to tune). Set it, for example to [lora_B].",
      config.where("finetune.simple_tuning"));
  tuning.epochs = true;
  tuning.steps = epochs;
  tuning.optimizer = {};
  tuning.optimizer.type = "SGD";
  tuning.optimizer.lr = lr;
  tuning.optimizer.weight_decay = weight_decay;
  tuning.words = words;
}

}  // namespace

std::optional<FineTuning> load_fine_tuning(Config& config) {
  FineTuning tuning;
  bool const use =
      config.get("finetune.before_eval", false,
                 "Each client trains on its own rows for finetune.local_update_steps before it is "
                 "judged; nothing of it is kept or sent.");
  tuning.steps = config.get<int64_t>("finetune.local_update_steps", 1,
                                     "Steps (or epochs) of a client before it is judged.", at_least(1));
  tuning.epochs = config.get("finetune.batch_or_epoch", "epoch", "What finetune.local_update_steps counts.",
                             one_of({"batch", "epoch"})) == "epoch";
  tuning.optimizer = load_optimizer_config(config, "finetune.optimizer");
  bool const simple = config.get("finetune.simple_tuning", false,
                                 "Tune the parameters of finetune.local_param alone, by epochs of SGD.");
  read_simple_tuning(config, tuning, use && simple);
  FSLLM_CHECK(use || !simple,
              "{} = True (finetune.before_eval is False, so nothing is tuned). Set that to True too.",
              config.where("finetune.simple_tuning"));
  return use ? std::optional(tuning) : std::nullopt;
}

bool tunes(FineTuning const& tuning, std::string const& parameter) {
  return tuning.words.empty() || has_any(parameter, tuning.words);
}

TrainConfig tuning_config(FineTuning const& tuning, TrainConfig train) {
  train.local_update_steps = tuning.steps;
  train.epochs = tuning.epochs;
  train.optimizer = tuning.optimizer;
  train.schedule = {};
  return train;
}

}  // namespace fsllm
