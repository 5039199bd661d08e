// SPDX-License-Identifier: Apache-2.0
// fsllm_hpc --plan: the memory that a run takes, known before it.
#include <ATen/ops/full.h>
#include <fmt/core.h>
#include <sys/resource.h>

#include <fstream>
#include <regex>
#include <sstream>

#include "fsllm/io/safetensors.hpp"
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

/// --check plans with the longest row, which it has encoded, as with that of shards.
TEST(Plan, OfCheckKnowsTheLongestRow) {
  TempDir dir;
  auto const config = write_config(dir.path(), SmallRun().yaml(dir.path())).string();
  auto const largest_pass = [&](std::vector<std::string> const& more) {
    std::vector<std::string> words{"fsllm_hpc", "--cfg", config, "--check"};
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = run(dir.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return number_behind(outcome.out, "in a pass of 2 rows of");
  };
  auto const shards = (dir / "shards").string();
  ASSERT_EQ(run(dir.path(), 0, {"fsllm_shard", "--cfg", config, "--out", shards}).exit_code, 0);
  auto const longest = largest_pass({"data.shards", shards});
  EXPECT_GT(longest, 0);
  EXPECT_LT(longest, 64) << "llm.tok_len";
  EXPECT_EQ(largest_pass({}), longest);
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

/// A LLaMA shape of 29 million parameters in bf16, all alike small, with rows of 12 tokens.
void write_shape(fs::path const& folder) {
  constexpr int64_t kWidth = 512, kInner = 2048, kTokens = 4096, kLayers = 6;
  TensorMap weights;
  auto const add = [&](std::string const& name, std::vector<int64_t> const& shape) {
    weights.emplace(name, at::full(shape, 0.01, at::kBFloat16));
  };
  add("model.embed_tokens.weight", {kTokens, kWidth});
  add("lm_head.weight", {kTokens, kWidth});
  add("model.norm.weight", {kWidth});
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    auto const block = "model.layers." + std::to_string(layer) + ".";
    for (auto const* name : {"q", "k", "v", "o"})
      add(block + "self_attn." + name + "_proj.weight", {kWidth, kWidth});
    for (auto const* name : {"gate", "up"}) add(block + "mlp." + name + "_proj.weight", {kInner, kWidth});
    add(block + "mlp.down_proj.weight", {kWidth, kInner});
    for (auto const* name : {"input", "post_attention"}) add(block + name + "_layernorm.weight", {kWidth});
  }
  write_safetensors(folder / "model.safetensors", weights);
  nlohmann::json const config{{"architectures", {"LlamaForCausalLM"}},
                              {"model_type", "llama"},
                              {"hidden_size", kWidth},
                              {"intermediate_size", kInner},
                              {"num_hidden_layers", kLayers},
                              {"num_attention_heads", 8},
                              {"num_key_value_heads", 8},
                              {"vocab_size", kTokens},
                              {"rms_norm_eps", 1e-5},
                              {"max_position_embeddings", 2048},
                              {"tie_word_embeddings", false}};
  std::ofstream(folder / "config.json") << config;
  std::ofstream rows(folder / "rows.jsonl");
  for (int row = 0; row < 4; ++row) {
    std::vector<int> ids;
    for (int i = 0; i < 12; ++i) ids.push_back(1 + 37 * i + row);
    rows << nlohmann::json{{"input_ids", ids}, {"labels", ids}} << "\n";
  }
}

/// One client on several ranks: memory within a tenth, and what it sends to its group.
TEST(Plan, IsWhatGroupsTake) {
  TempDir dir;
  write_shape(dir.path());
  auto const folder = dir.path().string();
  auto const config =
      write_config(dir.path(),
                   "outdir: " + folder + "\nuse_gpu: False\nmodel: {type: " + folder +
                       "}\ndata: {root: " + folder +
                       ", type: rows.jsonl, splits: [1.0, 0.0, 0.0]}\nfederate: {client_num: 1, "
                       "total_round_num: 1}\ndataloader: {batch_size: 4}\ncheckpoint: {every_rounds: 0}\n"
                       "train: {compute_dtype: fp32, local_update_steps: 2, optimizer: {type: AdamW, lr: "
                       "0.00001}}\nllm: {tok_len: 12, adapter: {use: False}}\n")
          .string();
  struct Case {
    int ranks, stage;
    std::string compute;
  };
  for (auto const& [ranks, stage, compute] : std::vector<Case>{{1, 0, "fp32"},
                                                               {2, 0, "fp32"},
                                                               {2, 1, "fp32"},
                                                               {2, 2, "fp32"},
                                                               {2, 3, "fp32"},
                                                               {4, 1, "fp32"},
                                                               {4, 2, "fp32"},
                                                               {4, 3, "fp32"},
                                                               {2, 2, "bf16"},
                                                               {2, 3, "bf16"}}) {
    auto const name = fmt::format("np{}_stage{}_{}", ranks, stage, compute);
    std::vector<std::string> words{"fsllm_hpc",
                                   "--cfg",
                                   config,
                                   "expname",
                                   name,
                                   "hpc.ranks_per_client",
                                   std::to_string(ranks),
                                   "hpc.zero_stage",
                                   std::to_string(stage),
                                   "train.compute_dtype",
                                   compute};
    auto const trained = run(dir.path(), ranks, words);
    ASSERT_EQ(trained.exit_code, 0) << name << trained.err << trained.out;
    words.emplace_back("--plan");
    auto const planned = run(dir.path(), ranks, words);
    ASSERT_EQ(planned.exit_code, 0) << name << planned.err << planned.out;
    double const plan = number_behind(planned.out, "resident set of a rank");
    auto const event = event_of(dir / name, 0);
    double const peak = event.at("peak_rss_bytes").get<double>() / (1 << 20);
    std::printf("%s: planned %.0f MiB, taken %.0f (%+.1f %%)\n", name.c_str(), plan, peak,
                100 * (plan / peak - 1));
    EXPECT_NEAR(plan, peak, 0.1 * peak) << name << planned.out;
    if (ranks == 1) continue;
    double const steps = 2, sent = event.at("bytes_in_groups").get<double>() / (1 << 20);
    EXPECT_NEAR(steps * ranks * number_behind(planned.out, "passes sends"), sent, 0.01 * sent) << name;
  }
}

/// A full model under a limit that its weights and optimiser exceed is refused before it is loaded.
TEST(Plan, RefusesWhatCannotFit) {
  TempDir dir;
  write_shape(dir.path());
  auto const folder = dir.path().string();
  auto const config =
      write_config(dir.path(), "outdir: " + folder + "\nexpname: run\nuse_gpu: False\nmodel: {type: " +
                                   folder + "}\ndata: {root: " + folder +
                                   ", type: rows.jsonl, splits: [1.0, 0.0, 0.0]}\nfederate: "
                                   "{client_num: 1, total_round_num: 1}\ndataloader: "
                                   "{batch_size: 4}\nllm: {tok_len: 12, adapter: {use: False}}\n")
          .string();
  auto const refused =
      run_limited(dir.path(), 0, {"fsllm_hpc", "--cfg", config}, RLIMIT_DATA, uint64_t{400} << 20);
  EXPECT_EQ(refused.exit_code, 2) << refused.out;
  EXPECT_THAT(refused.err, testing::HasSubstr("the run takes"));
  EXPECT_THAT(refused.err, testing::HasSubstr("--ignore-plan"));
  EXPECT_FALSE(fs::exists(dir / "run/metrics.jsonl"));
  auto const tried =
      run_limited(dir.path(), 0, {"fsllm_hpc", "--cfg", config, "--overwrite", "--ignore-plan"}, RLIMIT_DATA,
                  uint64_t{400} << 20);
  EXPECT_THAT(tried.err, testing::HasSubstr("out of memory"));
  auto const fits = run_limited(dir.path(), 0, {"fsllm_hpc", "--cfg", config, "--overwrite"}, RLIMIT_DATA,
                                uint64_t{2} << 30);
  EXPECT_EQ(fits.exit_code, 0) << fits.err;
}

/// Training and evaluation of clients of unequal size, on one rank and on two: within a fifth, at one of
/// three times, as the machine may be busy with other things.
TEST(PlanTime, SecondsAreThoseOfTheRun) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  TempDir dir;
  std::ofstream rows(dir / "rows.jsonl");
  for (int row = 0; row < 300; ++row) {
    std::vector<int> ids;
    for (int i = 0; i < 100 + row % 150; ++i) ids.push_back(3 + (37 * i + row) % 400);
    rows << nlohmann::json{{"input_ids", ids}, {"labels", ids}} << "\n";
  }
  rows.close();
  auto const folder = dir.path().string();
  auto const config =
      write_config(dir.path(),
                   "outdir: " + folder + "\nexpname: run\nuse_gpu: False\nmodel: {type: " +
                       test_data("models/stories260K").string() + "}\ndata: {root: " + folder +
                       ", type: rows.jsonl, splits: [0.7, 0.3, 0.0]}\nfederate: {client_num: 3, "
                       "total_round_num: 2}\ndataloader: {batch_size: 4}\ncheckpoint: {every_rounds: 0}\n"
                       "train: {batch_or_epoch: epoch, local_update_steps: 3, optimizer: {type: AdamW, lr: "
                       "0.0001}}\nllm: {tok_len: 300, adapter: {use: True, args: [{r: 8}]}}\n")
          .string();
  auto const sharded = run(dir.path(), 0, {"fsllm_shard", "--cfg", config, "--out", folder + "/shards"});
  ASSERT_EQ(sharded.exit_code, 0) << sharded.err;
  for (int const ranks : {1, 2}) {
    double train = 0, evaluate = 0;
    for (int time = 0; time < 3; ++time) {
      std::vector<std::string> words{"fsllm_hpc", "--cfg", config, "data.shards", folder + "/shards"};
      auto plan = words;
      plan.emplace_back("--plan");
      auto const planned = run(dir.path(), ranks, plan);
      ASSERT_EQ(planned.exit_code, 0) << planned.err << planned.out;
      words.emplace_back("--overwrite");
      auto const trained = run(dir.path(), ranks, words);
      ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
      auto const seconds = event_of(dir / "run", 1).at("seconds");
      train = number_behind(planned.out, "seconds of training a round") / seconds.at("train").get<double>();
      evaluate =
          number_behind(planned.out, "seconds of an evaluation") / seconds.at("evaluate").get<double>();
      std::printf("np %d: planned over taken: training %.3f, evaluation %.3f\n", ranks, train, evaluate);
      if (std::abs(train - 1) < 0.2 && std::abs(evaluate - 1) < 0.2) break;
    }
    EXPECT_NEAR(train, 1, 0.2) << ranks;
    EXPECT_NEAR(evaluate, 1, 0.2) << ranks;
  }
}

/// The figures in the headers of jobs are what the planner says for the machine in their command.
TEST(Plan, JobsOfSevenBillionParametersSayWhatItSays) {
  TempDir dir;
  auto const jobs = source_file("jobs");
  for (std::string const job : {"full_7b_4xV100", "full_7b_4nodes"}) {
    auto const text = read_text(jobs / (job + ".sbatch"));
    std::smatch command;
    ASSERT_TRUE(
        std::regex_search(text, command, std::regex("# fsllm_hpc (--cfg full_7b.yaml --plan [^\n]*)")))
        << job;
    std::istringstream list(command[1]);
    std::vector<std::string> words{"fsllm_hpc"};
    for (std::string word; list >> word;)
      words.push_back(word == "full_7b.yaml" ? (jobs / word).string() : word);
    words.insert(words.end(), {"model.type", (jobs / "llama_7b").string(), "use_gpu", "False"});
    auto const outcome = run(dir.path(), 0, words);
    ASSERT_EQ(outcome.exit_code, 0) << job << outcome.err << outcome.out;
    EXPECT_NE(outcome.out.find("the run fits"), std::string::npos) << outcome.out;
    std::string said;
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) said += line.empty() ? "#\n" : "# " + line + "\n";
    EXPECT_NE(text.find(said), std::string::npos) << job << " does not say\n" << said;
  }
}

TEST(Plan, ProposesWhatFits) {
  TempDir dir;
  auto const job = source_file("jobs");
  auto const plan = [&](std::vector<std::string> const& more) {
    std::vector<std::string> words{"fsllm_hpc", "--cfg",      (job / "full_7b.yaml").string(),
                                   "--plan",    "model.type", (job / "llama_7b").string(),
                                   "use_gpu",   "False"};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir.path(), 0, words);
  };
  auto const small = plan({"--plan-nodes", "1", "--plan-tasks-per-node", "4", "--plan-gpu-memory", "4GiB",
                           "--plan-node-memory", "32GiB"});
  EXPECT_NE(small.out.find("does not fit"), std::string::npos) << small.out << small.err;
  EXPECT_NE(small.out.find("nothing was found that fits"), std::string::npos) << small.out;
  auto const four =
      plan({"--plan-tasks-per-node", "4", "--plan-gpu-memory", "32GiB", "--plan-node-memory", "384GiB"});
  for (auto const* said : {"proposed, ", "zero_stage: 2", "offload: optimizer", "or hpc.ranks_per_client 4"})
    EXPECT_NE(four.out.find(said), std::string::npos) << said << four.out << four.err;
  for (std::string const wrong : {"32GX", "0GiB", "GiB", "-1G", "infG"}) {
    auto const outcome = plan({"--plan-gpu-memory=" + wrong});
    EXPECT_EQ(outcome.exit_code, 2) << wrong << outcome.out;
    EXPECT_NE(outcome.err.find("Write --plan-gpu-memory 32GiB"), std::string::npos) << outcome.err;
  }
}

}  // namespace
}  // namespace fsllm::test
