// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/loss_kind.hpp"

#include "fsllm/core/error.hpp"

namespace fsllm {

LossKind load_loss(Config& config) {
  auto const trainer =
      config.get("trainer.type", "",
                 "FS-LLM's name of the training. mezotrainer is train.optimizer.type: MeZO; FedBiOT's "
                 "llmdporewardtrainer and llmrewardtrainer mean train.loss: dpo; others mean "
                 "nothing here.");
  bool const dpo = trainer == "llmdporewardtrainer" || trainer == "llmrewardtrainer";
  auto const name = config.get(
      "train.loss", dpo ? "dpo" : "causal_lm",
      "What training lowers. causal_lm: cross-entropy of answers. dpo, reward: the rows are pairs "
      "(prompt, chosen, rejected); direct preference optimisation, and a pairwise reward loss whose "
      "reward is a mean over the answer's tokens. Their reference is the model without adapter.",
      one_of({"causal_lm", "dpo", "reward"}));
  FSLLM_CHECK(
      trainer != "llmpporewardtrainer" || config.has("train.loss"),
      "{} = llmpporewardtrainer (it trains a head that gives a number, which is not available in this "
      "version). Set train.loss: reward, whose reward is the answer's log-probability a token against "
      "that of the model without adapter.",
      config.where("trainer.type"));
  FSLLM_CHECK(!dpo || name == "dpo", "{} = {} ({} = {} asks for dpo). Leave one of them out.",
              config.where("train.loss"), name, config.where("trainer.type"), trainer);
  return name == "dpo" ? LossKind::dpo : name == "reward" ? LossKind::reward : LossKind::causal_lm;
}

std::string name_of(LossKind loss) {
  return loss == LossKind::dpo ? "dpo" : loss == LossKind::reward ? "reward" : "causal_lm";
}

}  // namespace fsllm
