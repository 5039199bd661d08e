// SPDX-License-Identifier: Apache-2.0
// fsllm_hpc --plan: the memory that a run takes, known before it.
#include <fstream>
#include <regex>

#include "preference.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

double number_behind(std::string const& text, std::string const& words) {
  std::smatch match;
  return std::regex_search(text, match, std::regex(words + " +([0-9.]+)")) ? std::stod(match[1]) : -1;
}

/// Small adapters, rules and optimisers of every kind have a plan; nothing is written.
TEST(Plan, IsMadeOfEveryKindOfRun) {
  TempDir dir;
  for (auto const& more : std::vector<std::vector<std::string>>{
           {},
           {"llm.adapter.use", "False", "train.activation_checkpointing", "block"},
           {"federate.method", "scaffold", "train.activation_checkpointing", "selective"},
           {"federate.lora_aggregation", "flora"},
           {"llm.adapter.args", "[{adapter_method: prefix, num_virtual_tokens: 4}]"},
           {"llm.adapter.args", "[{adapter_method: bottleneck}]", "train.micro_batch_size", "1"},
           {"train.optimizer", "{type: MeZO, lr: 0.1}"},
           {"train.storage_dtype", "nf4", "hpc.clients_per_pass", "3"}}) {
    auto words = more;
    words.emplace_back("--plan");
    auto const outcome = train_in(dir.path(), {}, words, more.empty() ? 2 : 0);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    EXPECT_GT(number_behind(outcome.out, "resident set of a rank"), 100) << outcome.out;
    EXPECT_GT(number_behind(outcome.out, "trainable parameters"), -1) << outcome.out;
    EXPECT_FALSE(fs::exists(dir / "run"));
  }
}

/// SmolLM2 with LoRA on 2 rows of 128 tokens.
TEST(Plan, IsWhatTheRunTakes) {
  auto const model = source_file(".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!fs::exists(model))
    GTEST_SKIP() << "no test data: " << model.string() << " (tools/bootstrap.sh --with-demo-model)";
  TempDir dir;
  std::ofstream rows(dir / "rows.jsonl");
  for (int row = 0; row < 2; ++row) {
    std::vector<int> ids;
    for (int i = 0; i < 128; ++i) ids.push_back(100 + (37 * i + row) % 900);
    rows << nlohmann::json{{"input_ids", ids}, {"labels", ids}} << "\n";
  }
  rows.close();
  auto const folder = dir.path().string();
  auto const config =
      write_config(
          dir.path(),
          "outdir: " + folder + "\nexpname: run\nmodel: {type: " + model.string() +
              "}\ndata: {root: " + folder +
              ", type: rows.jsonl, splits: [1.0, 0.0, 0.0]}\nfederate: {client_num: 1, total_round_num: 1}\n"
              "dataloader: {batch_size: 2}\ncheckpoint: {every_rounds: 0}\nhpc: {stage_dir: " +
              folder +
              "/stage}\ntrain: {local_update_steps: 1, optimizer: {type: AdamW, lr: 0.001}}\n"
              "llm: {tok_len: 128, adapter: {use: True, args: [{r: 8, target_modules: all-linear}]}}\n")
          .string();
  auto const run_it = [&](std::vector<std::string> const& more) {
    std::vector<std::string> words{"fsllm_hpc", "--cfg", config};
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = run(dir.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    return outcome.out;
  };
  run_it({});  // converts the weights
  for (std::string const value : {"none", "block"}) {
    auto const plan =
        number_behind(run_it({"train.activation_checkpointing", value, "--plan"}), "resident set of a rank");
    run_it({"train.activation_checkpointing", value, "--overwrite"});
    double const peak = event_of(dir / "run", 0).at("peak_rss_bytes").get<double>() / (1 << 20);
    std::printf("%s: planned %.0f MiB, taken %.0f\n", value.c_str(), plan, peak);
    EXPECT_NEAR(plan, peak, 0.1 * peak) << value;
  }
}

}  // namespace
}  // namespace fsllm::test
