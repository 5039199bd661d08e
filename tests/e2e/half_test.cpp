// SPDX-License-Identifier: Apache-2.0
// Training in fp16 under a loss scale, through the program.
#include <fmt/core.h>

#include "federation.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

class HalfTraining : public testing::Test {
 protected:
  Outcome train(std::string const& name, Words const& more, int np = 0) {
    SmallRun small;
    small.splits = "[0.8, 0.2, 0.0]";
    small.optimizer = "{type: AdamW, lr: 0.01}";
    small.steps = 6;
    Words words{"fsllm_hpc",
                "--cfg",
                write_config(dir_.path(), small.yaml(dir_.path())).string(),
                "expname",
                name,
                "train.is_enable_half",
                "True",
                "train.compute_dtype",
                "fp16"};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  nlohmann::json last_round(std::string const& name) {
    nlohmann::json last;
    for (auto const& event : read_events(dir_ / name / "metrics.jsonl"))
      if (event.at("event") == "round") last = event;
    return last;
  }
  TempDir dir_;
};

TEST_F(HalfTraining, OverflowsAreSkippedCountedAndReported) {
  auto const outcome = train("run", {"train.initial_scale_power", "18"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  auto const result = last_round("run").at("train");
  auto const overflows = result.at("overflow_steps").get<int64_t>(),
             steps = result.at("steps").get<int64_t>();
  EXPECT_GT(overflows, 0);
  EXPECT_LT(overflows, steps);
  EXPECT_EQ(result.at("skipped_steps"), 0);
  EXPECT_LT(result.at("loss_scale").get<double>(), 0x1p18);
  EXPECT_THAT(outcome.out + outcome.err,
              testing::HasSubstr(fmt::format("{} of {} steps overflowed (loss scale ", overflows, steps)));
  EXPECT_THAT(outcome.err, testing::Not(testing::HasSubstr("Lower train.optimizer.lr")));
}

TEST_F(HalfTraining, ARoundWithoutAStepIsNamed) {
  auto const outcome = train("run", {"train.loss_scale", "1e30"});
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err << outcome.out;
  EXPECT_THAT(outcome.err,
              testing::HasSubstr("round 1: no step was taken (the gradients of 18 of 18 overflowed under "
                                 "the loss scale). Lower train.initial_scale_power"));
}

/// The scale that a client has found goes on with its optimiser, over a resume too.
TEST_F(HalfTraining, ScalesGoOnWithOptimisers) {
  Words const keep{"federate.keep_optimizer", "True", "train.initial_scale_power", "18"};
  auto const whole = train("whole", keep, 2);
  ASSERT_EQ(whole.exit_code, 0) << whole.err << whole.out;
  EXPECT_EQ(last_round("whole").at("train").at("overflow_steps"), 0) << "found in the first round";
  ASSERT_EQ(train("cut", keep, 2).exit_code, 0);
  fs::remove_all(dir_ / "cut/checkpoints/round_000003");
  fs::remove_all(dir_ / "cut/adapter");
  auto const resumed = run(dir_.path(), 3, {"fsllm_hpc", "--resume", (dir_ / "cut").string()});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err << resumed.out;
  auto const adapter = [&](char const* name) {
    return read_text(dir_ / name / "adapter/adapter_model.safetensors");
  };
  EXPECT_TRUE(adapter("cut") == adapter("whole"));
  EXPECT_EQ(last_round("cut").at("train").at("loss_scale"), last_round("whole").at("train").at("loss_scale"));
}

/// 200 steps on GSM8K: training and validation loss are within 0.5 % of those in fp32, 0.3 % in bf16, which
/// is written for a file in fp32 by train.compute_dtype alone.
TEST_F(HalfTraining, EndsWhereFp32Does) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  fs::create_directories(dir_ / "data");
  fs::create_symlink(test_data("datasets/gsm8k/train.jsonl"), dir_ / "data/gsm8k_train.jsonl");
  auto const config = write_config(
      dir_.path(),
      fmt::format("outdir: {0}\nmodel: {{type: {1}}}\n"
                  "data: {{root: {0}/data, type: gsm8k@llm, splitter: iid, splits: [0.99, 0.005, 0.005]}}\n"
                  "llm: {{tok_len: 64, adapter: {{use: True, args: [{{r: 8, lora_alpha: 16}}]}}}}\n"
                  "federate: {{client_num: 2, total_round_num: 2}}\ndataloader: {{batch_size: 4}}\n"
                  "train: {{local_update_steps: 100, optimizer: {{type: AdamW, lr: 0.005}}}}\n",
                  dir_.path().string(), test_data("models/stories260K").string()));
  for (auto const* type : {"fp32", "fp16", "bf16"}) {
    auto const trained =
        run(dir_.path(), 2,
            {"fsllm_hpc", "--cfg", config.string(), "expname", type, "train.compute_dtype", type});
    ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
    EXPECT_THAT(trained.out,
                testing::HasSubstr(fmt::format("weights {}", type == std::string("fp32") ? "auto" : type)));
  }
  for (auto const* part : {"train", "val"})
    for (auto const& [type, bound] :
         std::vector<std::pair<std::string, double>>{{"fp16", 0.005}, {"bf16", 0.003}}) {
      double const full = last_round("fp32").at(part).at("loss_per_token"),
                   half = last_round(type).at(part).at("loss_per_token");
      EXPECT_NEAR(half, full, bound * full) << part << " in " << type;
    }
}

}  // namespace
}  // namespace fsllm::test
