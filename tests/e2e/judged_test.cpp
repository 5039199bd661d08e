// SPDX-License-Identifier: Apache-2.0
// What clients are judged by beside the global model of the round: a mean of rounds, and fine-tuned
// parameters.
#include <ATen/core/Tensor.h>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

class Judged : public testing::Test {
 protected:
  void train(std::string const& name, int rounds, std::vector<std::string> const& more, int np = 2) {
    SmallRun small;
    small.rounds = rounds;
    small.splits = "[0.8, 0.2, 0.0]";
    small.more = "early_stop: {patience: 0}\n";
    std::vector<std::string> words{
        "fsllm_hpc", "--cfg", write_config(dir_.path(), small.yaml(dir_.path())).string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = run(dir_.path(), np, words);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  TensorMap adapter(std::string const& folder) {
    return SafetensorsReader(dir_ / folder, "adapter_model").tensors();
  }
  /// Event `at` of a run's metrics.
  nlohmann::json event(std::string const& name, size_t at) {
    return read_events(dir_ / name / "metrics.jsonl").at(at);
  }
  nlohmann::json summary(std::string const& name) {
    return nlohmann::json::parse(read_text(dir_ / name / "summary.json"));
  }
  TempDir dir_;
};

TEST_F(Judged, FedSwaIsTheMeanOfRounds) {
  std::vector<std::string> const swa{"fedswa.use", "True", "fedswa.start_rnd", "1", "fedswa.freq", "2"};
  train("one", 1, {});
  train("three", 3, {});
  train("swa", 3, swa);
  auto const one = adapter("one/adapter"), three = adapter("three/adapter"), mean = adapter("swa/swa");
  for (auto const& [name, tensor] : adapter("swa/adapter")) {
    EXPECT_TRUE(tensor.equal(three.at(name))) << "training does not see the mean: " << name;
    EXPECT_TRUE(tensors_near(mean.at(name), one.at(name).add(three.at(name)).div(2), 1e-7)) << name;
  }
  auto const judged = summary("swa").at("swa");
  EXPECT_EQ(judged.at("models"), 2);
  EXPECT_FALSE(summary("three").contains("swa"));
  train("from_mean", 1, {"llm.adapter.args", "[]", "llm.adapter.init_from", (dir_ / "swa/swa").string()});
  EXPECT_EQ(judged.at("val"), event("from_mean", 0).at("val"));
  auto const results = read_text(dir_ / "swa/eval_results.log");
  EXPECT_THAT(results, testing::HasSubstr("'Role': 'Server SWA#', 'Round': 3"));

  auto const before = read_text(dir_ / "swa/swa/adapter_model.safetensors");
  auto const record = training_record(dir_ / "swa/metrics.jsonl");
  std::filesystem::resize_file(dir_ / "swa/checkpoints/round_000003/state.h5", 1000);
  std::filesystem::remove_all(dir_ / "swa/adapter");
  std::filesystem::remove_all(dir_ / "swa/swa");
  auto const outcome = run(dir_.path(), 3, {"fsllm_hpc", "--resume", (dir_ / "swa").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(read_text(dir_ / "swa/swa/adapter_model.safetensors") == before);
  EXPECT_EQ(training_record(dir_ / "swa/metrics.jsonl"), record);
  EXPECT_EQ(read_text(dir_ / "swa/eval_results.log"), results);
}

/// Early stop comes before the first round of the mean: that is told, and nothing else is missing.
TEST_F(Judged, FedSwaOfARunThatStopsEarlier) {
  train(
      "swa", 4,
      {"fedswa.use", "True", "fedswa.start_rnd", "4", "early_stop.patience", "1", "early_stop.delta", "10"});
  auto const ended = summary("swa");
  EXPECT_EQ(ended.at("stopped_early"), true);
  EXPECT_FALSE(ended.contains("swa"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "swa/swa"));
  EXPECT_THAT(read_text(dir_ / "swa/exp_print.log"),
              testing::HasSubstr("before the first whose weights go into the mean (4)"));
}

/// Before the first round each client fine-tunes as it trains alone in the first round; the run learns as
/// without.
TEST_F(Judged, FineTuningIsForTheJudgementAlone) {
  train("plain", 2, {});
  train("alone", 1, {"federate.method", "local"});
  train("tuned", 2,
        {"finetune.before_eval", "True", "finetune.batch_or_epoch", "batch", "finetune.local_update_steps",
         "3", "finetune.optimizer.lr", "0.5"});
  auto const plain = adapter("plain/adapter");
  for (auto const& [name, tensor] : adapter("tuned/adapter"))
    EXPECT_TRUE(tensor.equal(plain.at(name))) << name;
  EXPECT_EQ(event("tuned", 0).at("val"), event("alone", 1).at("val"));
  EXPECT_EQ(event("tuned", 1).at("train"), event("plain", 1).at("train"));
  EXPECT_NE(event("tuned", 2).at("val"), event("plain", 2).at("val"));
}

/// B alone, as a client that trains by itself with A resting.
TEST_F(Judged, SimpleTuningMovesTheNamedParameters) {
  train("tuned", 1,
        {"finetune.before_eval", "True", "finetune.simple_tuning", "True", "finetune.local_param", "[lora_B]",
         "finetune.epoch_linear", "2", "finetune.lr_linear", "0.3"});
  train("alone", 1,
        {"federate.lora_aggregation", "ffa", "federate.client_idx_for_local_train", "2",
         "train.batch_or_epoch", "epoch", "train.local_update_steps", "2", "train.optimizer.lr", "0.3"},
        0);
  auto const loss_of = [&](std::string const& name, int round) {
    for (auto const& line : read_events(dir_ / name / "metrics_clients.jsonl"))
      if (line.at("client") == 2 && line.at("round") == round)
        return line.at("val").at("loss_per_token").get<double>();
    return 0.0;
  };
  EXPECT_GT(loss_of("tuned", 0), 0);
  EXPECT_NEAR(loss_of("tuned", 0), loss_of("alone", 1), 1e-6);
  EXPECT_GT(std::abs(loss_of("alone", 0) - loss_of("alone", 1)), 1e-3);
}

}  // namespace
}  // namespace fsllm::test
