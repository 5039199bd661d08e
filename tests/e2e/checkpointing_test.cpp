// SPDX-License-Identifier: Apache-2.0
// train.activation_checkpointing: the same adapter, in less memory.
#include <fmt/core.h>

#include <fstream>

#include "preference.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

class ActivationCheckpointing : public testing::Test {
 protected:
  ActivationCheckpointing() {
    small_.rounds = 2;
    small_.adapter = "{r: 4, lora_alpha: 8, lora_dropout: 0.2, target_modules: all-linear}";
    small_.shuffle = true;
  }
  std::string adapter(std::string const& name) {
    return read_text(dir_ / name / "adapter/adapter_model.safetensors");
  }
  /// What a run writes under each of the three values.
  void expect_same(std::string const& name, std::vector<std::string> const& more, int np,
                   std::string const& file = "adapter/adapter_model.safetensors") {
    std::string kept;
    for (std::string const value : {"none", "block", "selective"}) {
      auto words = more;
      words.insert(words.end(), {"train.activation_checkpointing", value, "expname", name + value});
      auto const outcome = train_in(dir_.path(), small_, words, value == "none" ? 0 : np);
      ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
      auto const written = read_text(dir_ / (name + value) / file);
      if (value == "none") kept = written;
      EXPECT_TRUE(written == kept) << name << value;
    }
  }
  TempDir dir_;
  SmallRun small_;
};

TEST_F(ActivationCheckpointing, ChangesNoBit) {
  expect_same("lora", {"train.micro_batch_size", "1", "grad.grad_clip", "0.1"}, 2);
  expect_same("shared", {"hpc.clients_per_pass", "3"}, 0);
  expect_same("pairs", on_pairs({"train.loss", "dpo"}), 2);
  expect_same("mezo", {"train.optimizer", "{type: MeZO, lr: 0.001}"}, 0);
  expect_same("full", {"llm.adapter.use", "False", "train.optimizer.lr", "0.01"}, 2,
              "adapter/model.safetensors");
}

TEST_F(ActivationCheckpointing, MayChangeWhereARunGoesOn) {
  train_in(dir_.path(), small_, {"expname", "a"});
  auto const whole = adapter("a");
  fs::remove_all(dir_ / "a/checkpoints/round_000002");
  fs::remove_all(dir_ / "a/adapter");
  auto const outcome =
      run(dir_.path(), 2,
          {"fsllm_hpc", "--resume", (dir_ / "a").string(), "train.activation_checkpointing", "block"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(adapter("a") == whole);
}

/// SmolLM2 on rows of 256 tokens, of which the last 16 are scored.
TEST_F(ActivationCheckpointing, TakesAQuarterOfTheMemory) {
  auto const model = source_file(".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!fs::exists(model))
    GTEST_SKIP() << "no test data: " << model.string() << " (tools/bootstrap.sh --with-demo-model)";
  auto const peak = [&](std::string const& value, int length, int rows) {
    std::ofstream file(dir_ / "rows.jsonl");
    for (int row = 0; row < rows; ++row) {
      std::vector<int> ids, labels;
      for (int i = 0; i < length; ++i) {
        ids.push_back(100 + (37 * i + row) % 900);
        labels.push_back(i < length - 16 ? -100 : ids.back());
      }
      file << nlohmann::json{{"input_ids", ids}, {"labels", labels}} << "\n";
    }
    file.close();
    auto const yaml = fmt::format(
        "outdir: {0}\nexpname: {1}{2}\nmodel: {{type: {3}}}\n"
        "data: {{root: {0}, type: rows.jsonl, splits: [1.0, 0.0, 0.0]}}\n"
        "federate: {{client_num: 1, total_round_num: 1}}\ndataloader: {{batch_size: {4}}}\n"
        "train: {{local_update_steps: 1, optimizer: {{type: SGD, lr: 0.1}}, activation_checkpointing: {1}}}\n"
        "llm: {{tok_len: 512, adapter: {{use: True, args: [{{r: 8, lora_dropout: 0.05, target_modules: "
        "all-linear}}]}}}}\nhpc: {{stage_dir: {0}/stage}}\ncheckpoint: {{every_rounds: 0}}\n",
        dir_.path().string(), value, length, model.string(), rows);
    auto const outcome =
        run(dir_.path(), 0, {"fsllm_hpc", "--cfg", write_config(dir_.path(), yaml).string(), "--overwrite"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    return event_of(dir_ / fmt::format("{}{}", value, length), 0).at("peak_rss_bytes").get<double>() /
           (1 << 20);
  };
  peak("none", 17, 1);  // converts the weights
  double const small = peak("none", 17, 1), none = peak("none", 256, 4) - small;
  double const block = peak("block", 256, 4) - small, selective = peak("selective", 256, 4) - small;
  std::printf("4 rows of 256 tokens add %.0f MiB; block %.2f of it, selective %.2f\n", none, block / none,
              selective / none);
  EXPECT_LE(block, none / 4);
  EXPECT_LE(selective, 0.75 * none);
}

}  // namespace
}  // namespace fsllm::test
