// SPDX-License-Identifier: Apache-2.0
// What federate.lora_aggregation does to the factors of LoRA.
#include <ATen/core/Tensor.h>
#include <ATen/ops/eye.h>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

class LoraAggregation : public testing::Test {
 protected:
  Outcome train(std::string const& name, int rounds, std::vector<std::string> const& more) {
    SmallRun small;
    small.rounds = rounds;
    std::vector<std::string> words{
        "fsllm_hpc", "--cfg", write_config(dir_.path(), small.yaml(dir_.path())).string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), 2, words);
  }
  TensorMap adapter(std::string const& name, int rounds, std::vector<std::string> const& more) {
    auto const outcome = train(name, rounds, more);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    return SafetensorsReader(dir_ / name / "adapter", "adapter_model").tensors();
  }
  /// Do the factors "lora_A" or "lora_B" differ between two adapters: all (1), none (0), or some (-1)?
  static int differ(TensorMap const& a, TensorMap const& b, std::string const& factor) {
    int different = 0, all = 0;
    for (auto const& [name, tensor] : a) {
      if (name.find(factor) == std::string::npos) continue;
      ++all;
      different += tensor.equal(b.at(name)) ? 0 : 1;
    }
    EXPECT_GT(all, 0);
    return different == all ? 1 : different == 0 ? 0 : -1;
  }
  TempDir dir_;
};

TEST_F(LoraAggregation, FfaLeavesA) {
  auto const start = adapter("start", 1, {"train.optimizer.lr", "0"});
  auto const ffa = adapter("ffa", 2, {"federate.lora_aggregation", "ffa"});
  EXPECT_EQ(differ(ffa, start, "lora_A"), 0);
  EXPECT_EQ(differ(ffa, start, "lora_B"), 1);
  // AdamW's weight decay is no reason to move what rests.
  auto const decayed = adapter(
      "decayed", 1,
      {"federate.lora_aggregation", "ffa", "train.optimizer", "{type: AdamW, lr: 0.01, weight_decay: 0.5}"});
  EXPECT_EQ(differ(decayed, start, "lora_A"), 0);
}

TEST_F(LoraAggregation, RoloraAlternates) {
  auto const start = adapter("start", 1, {"train.optimizer.lr", "0"});
  std::vector<std::string> const rule{"federate.lora_aggregation", "rolora"};
  auto const one = adapter("one", 1, rule), two = adapter("two", 2, rule), three = adapter("three", 3, rule);
  EXPECT_EQ(differ(one, start, "lora_A"), 0);
  EXPECT_EQ(differ(one, start, "lora_B"), 1);
  EXPECT_EQ(differ(two, one, "lora_A"), 1);
  EXPECT_EQ(differ(two, one, "lora_B"), 0);
  EXPECT_EQ(differ(three, two, "lora_A"), 0);
  EXPECT_EQ(differ(three, two, "lora_B"), 1);
  auto const first = adapter("ffa", 1, {"federate.lora_aggregation", "ffa"});
  EXPECT_EQ(differ(one, first, "lora_"), 0) << "the first round is that of FFA";
}

/// One round is FFA's, with the same BA from an orthonormal A.
TEST_F(LoraAggregation, FedsvdOrthogonalisesA) {
  auto const ffa = adapter("ffa", 1, {"federate.lora_aggregation", "ffa"});
  auto const fedsvd = adapter("fedsvd", 1, {"federate.lora_aggregation", "fedsvd"});
  for (auto const& [name, tensor] : fedsvd) {
    if (name.find("lora_A") == std::string::npos) continue;
    auto partner = name;
    partner.replace(name.find("lora_A"), 6, "lora_B");
    auto const a = tensor.to(at::kDouble), b = fedsvd.at(partner).to(at::kDouble);
    EXPECT_TRUE(tensors_near(a.mm(a.t()), at::eye(a.size(0), at::kDouble), 1e-6)) << name;
    auto const product = ffa.at(partner).to(at::kDouble).mm(ffa.at(name).to(at::kDouble));
    EXPECT_TRUE(tensors_near(b.mm(a), product, 1e-6 * product.abs().max().item<double>())) << name;
    auto const norms = b.square().sum(0).sqrt();
    for (int64_t i = 1; i < norms.numel(); ++i)
      EXPECT_GE(norms[i - 1].item<double>(), norms[i].item<double>()) << "singular values fall";
  }
  auto const seldom =
      adapter("seldom", 1, {"federate.lora_aggregation", "fedsvd", "federate.lora_svd_every", "2"});
  EXPECT_EQ(differ(seldom, ffa, "lora_"), 0);
}

TEST_F(LoraAggregation, NeedsFactorsThatAreSent) {
  auto const refused = [&](std::vector<std::string> more, std::string const& message) {
    more.insert(more.end(), {"federate.lora_aggregation", "ffa"});
    auto const outcome = train("bad", 1, more);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
  };
  refused({"federate.method", "local"}, "nothing is sent");
  refused({"federate.method", "scaffold"}, "clients keep a state of their own");
  refused({"llm.adapter.args", "[{adapter_method: ia3}]"},
          "no parameter that is trained is a factor of LoRA");
}

}  // namespace
}  // namespace fsllm::test
