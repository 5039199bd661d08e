// SPDX-License-Identifier: Apache-2.0
// Clients whose batches share a forward pass (hpc.clients_per_pass).
#include <ATen/core/Tensor.h>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

class SharedPass : public testing::Test {
 protected:
  Outcome train(std::string const& name, std::vector<std::string> const& more, int np) {
    SmallRun small;
    small.rounds = 2;
    small.adapter = "{r: 4, lora_alpha: 8, lora_dropout: 0.2, target_modules: all-linear}";
    small.shuffle = true;
    small.optimizer = "{type: SGD, lr: 0.05}";
    std::vector<std::string> words{
        "fsllm_hpc", "--cfg", write_config(dir_.path(), small.yaml(dir_.path())).string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  TensorMap adapter(std::string const& name, std::vector<std::string> const& more, int np = 0) {
    auto const outcome = train(name, more, np);
    EXPECT_EQ(outcome.exit_code, 0) << name << outcome.err << outcome.out;
    return SafetensorsReader(dir_ / name / "adapter", "adapter_model").tensors();
  }
  TempDir dir_;
};

/// Alone and together, with what a client's step can have: dropout, accumulation, micro-batches, padding,
/// clipping, hooks; clients of unequal length, some done before others.
TEST_F(SharedPass, GivesEachClientWhatItWouldLearnAlone) {
  std::vector<std::vector<std::string>> const cases{
      {},
      {"grad.grad_accum_count", "2", "train.micro_batch_size", "1", "grad.grad_clip", "0.1"},
      {"train.batch_or_epoch", "epoch", "train.local_update_steps", "1", "dataloader.packing", "none"},
      {"fedprox.use", "True", "fedprox.mu", "0.5", "federate.lora_aggregation", "flexlora"},
      {"federate.lora_aggregation", "ffa", "train.optimizer", "{type: AdamW, lr: 0.01, weight_decay: 0.1}"},
      {"federate.lora_aggregation", "fedsb", "train.optimizer", "{type: AdamW, lr: 0.001}"},
      {"federate.method", "local"}};
  bool differs = false;
  for (size_t i = 0; i < cases.size(); ++i) {
    auto const with = [&](std::string const& clients) {
      auto words = cases[i];
      words.insert(words.end(), {"hpc.clients_per_pass", clients});
      return words;
    };
    auto const name = std::to_string(i);
    bool const local = i + 1 == cases.size();
    if (local) {
      EXPECT_EQ(train("alone" + name, with("1"), 0).exit_code, 0);
      EXPECT_EQ(train("shared" + name, with("3"), 2).exit_code, 2) << "clients keep their own models";
      continue;
    }
    auto const alone = adapter("alone" + name, with("1"));
    auto const three = adapter("three" + name, with("3")), two = adapter("two" + name, with("2"), 2);
    for (auto const& [parameter, tensor] : alone) {
      double const size = tensor.abs().max().item<double>();
      EXPECT_TRUE(tensors_near(three.at(parameter), tensor, 1e-5 * size)) << i << parameter;
      EXPECT_TRUE(tensors_near(two.at(parameter), tensor, 1e-5 * size)) << i << parameter;
      differs = differs || !three.at(parameter).equal(tensor);
    }
    auto const again = adapter("ranks" + name, with("2"), 3);
    for (auto const& [parameter, tensor] : two) EXPECT_TRUE(again.at(parameter).equal(tensor)) << parameter;
    auto const first = read_events(dir_ / ("alone" + name) / "metrics.jsonl").back().at("train"),
               second = read_events(dir_ / ("three" + name) / "metrics.jsonl").back().at("train");
    for (auto const* count : {"tokens", "targets", "samples", "steps"})
      EXPECT_EQ(first.at(count), second.at(count));
    EXPECT_NEAR(first.at("loss_per_token").get<double>(), second.at("loss_per_token").get<double>(), 1e-5);
  }
  EXPECT_TRUE(differs) << "not one bit: nothing was shared";
}

TEST_F(SharedPass, RefusesWhatCannotShare) {
  auto const refused = [&](std::vector<std::string> more, std::string const& message) {
    more.insert(more.end(), {"hpc.clients_per_pass", "2"});
    auto const outcome = train("bad", more, 2);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
  };
  refused({"federate.method", "scaffold"}, "every client trains where its state is");
  refused({"llm.adapter.args", "[{adapter_method: ia3}]"}, "need a LoRA of the blocks alone");
  refused({"llm.adapter.args", "[{r: 4, target_modules: [q_proj, lm_head]}]"},
          "need a LoRA of the blocks alone");
  refused({"llm.retry_on_nan_loss", "True"}, "rows would be drawn anew for all");
  refused({"llm.adapter.use", "False"}, "need a LoRA of the blocks alone");
}

}  // namespace
}  // namespace fsllm::test
