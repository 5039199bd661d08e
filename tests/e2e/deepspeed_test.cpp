// SPDX-License-Identifier: Apache-2.0
// DeepSpeed's JSON (llm.deepspeed) through the program: the samples in the test data, the same bits as the
// keys written by hand, and mistakes in it.
#include <fstream>

#include "bad_input.hpp"
#include "federation.hpp"
#include "fsllm/core/config.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

class DeepSpeedJson : public testing::Test {
 protected:
  Words words(std::string const& name, Words const& more) const {
    SmallRun small;
    small.splits = "[0.8, 0.2, 0.0]";
    small.optimizer = "{}";  // left to the JSON
    small.rounds = 2;
    auto yaml = small.yaml(dir_.path());
    auto const batch = yaml.find("batch_size: 2, ");
    EXPECT_NE(batch, yaml.npos) << yaml;
    if (batch != yaml.npos) yaml.erase(batch, 15);
    Words all{"fsllm_hpc",  "--cfg", write_config(dir_.path(), yaml).string(), "expname", name,
              "eval.split", "[val]"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::string write_json(std::string const& name, std::string const& text) const {
    std::ofstream(dir_ / name) << text;
    return (dir_ / name).string();
  }
  Outcome run_with(int np, std::string const& file, Words more, std::string const& name = "run") const {
    more.insert(more.begin(), {"llm.deepspeed.use", "True", "llm.deepspeed.ds_config", file});
    return run(dir_.path(), np, words(name, more));
  }
  TempDir dir_;
};

/// File → keys of the configuration that come of it on two ranks, or words of the message that refuses it.
std::map<std::string, std::map<std::string, std::string>> const kSamples{
    {"codealpaca_ds_config.json",
     {{"hpc.zero_stage", "3"},
      {"hpc.ranks_per_client", "2"},
      {"hpc.offload", "params"},
      {"train.optimizer.type", "AdamW"},
      {"train.optimizer.lr", "2.0e-05"},
      {"train.optimizer.betas", "[0.9, 0.999]"},
      {"train.optimizer.eps", "1.0e-08"},
      {"train.optimizer.weight_decay", "0"},
      {"train.initial_scale_power", "32"},
      {"train.loss_scale_window", "1000"},
      {"train.loss_scale_hysteresis", "2"}}},
    {"ds_z0_config.json",
     {{"hpc.zero_stage", "0"}, {"hpc.ranks_per_client", "1"}, {"train.initial_scale_power", "16"}}},
    {"ds_z2_autotp_config.json", {{"error", "tensor_parallel.autotp_size = 2: matrices are not split"}}},
    {"ds_z2_config.json", {{"hpc.zero_stage", "2"}, {"hpc.ranks_per_client", "2"}, {"hpc.offload", "none"}}},
    {"ds_z2_offload_config.json", {{"hpc.zero_stage", "2"}, {"hpc.offload", "optimizer"}}},
    {"ds_z3_config.json", {{"hpc.zero_stage", "3"}, {"hpc.offload", "none"}}},
    {"ds_z3_fp8_config.json", {{"hpc.zero_stage", "3"}, {"hpc.offload", "optimizer"}}},
    {"ds_z3_offload_config.json", {{"hpc.zero_stage", "3"}, {"hpc.offload", "params"}}},
    {"stanford_alpaca_offload_opt_param.json",
     {{"hpc.zero_stage", "3"},
      {"hpc.offload", "params"},
      {"train.optimizer.type", "AdamW"},
      {"train.optimizer.lr", "0.25"},
      {"train.scheduler.type", "WarmupDecayLR"},
      {"train.scheduler.total_steps", "0"}}},
};

TEST_F(DeepSpeedJson, SamplesBecomeKeys) {
  FSLLM_NEED_TEST_DATA("configs/deepspeed");
  size_t seen = 0;
  for (auto const& entry : fs::directory_iterator(test_data("configs/deepspeed"))) {
    SCOPED_TRACE(entry.path());
    auto const name = entry.path().filename().string();
    ASSERT_TRUE(kSamples.contains(name)) << "a sample without expectation";
    ++seen;
    auto const& wanted = kSamples.at(name);
    bool const own_rate = name.starts_with("codealpaca");
    auto const outcome =
        run_with(2, entry.path().string(),
                 own_rate ? Words{"--print-config"} : Words{"train.optimizer.lr", "0.25", "--print-config"});
    if (wanted.contains("error")) {
      expect_message(outcome, wanted.at("error"));
      continue;
    }
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    auto const config = Config::parse(outcome.out, "printed");
    for (auto const& [key, value] : wanted) EXPECT_EQ(config.text(key).value_or(""), value) << key;
    EXPECT_EQ(config.text("llm.deepspeed.use").value_or(""), "false");
  }
  EXPECT_EQ(seen, kSamples.size());
}

TEST_F(DeepSpeedJson, TrainsToTheBitsOfOurOwnKeys) {
  write_json("ds.json", R"({
	"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": "auto", "gradient_clipping": 0.5,
	"optimizer": {"type": "Adam", "params": {"lr": 5e-3, "betas": [0.8, 0.99], "eps": 1e-6}},
	"scheduler": {"type": "WarmupDecayLR", "params": {"warmup_min_lr": 0.0005, "warmup_max_lr": 5e-3,
	              "warmup_num_steps": 3, "total_num_steps": "auto"}},
	"zero_optimization": {"stage": 2, "overlap_comm": true}, "steps_per_print": 10})");
  // Beside the YAML: the working directory is another one.
  auto const outcome = run_with(2, "ds.json", {"llm.adapter.use", "False"}, "json");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  auto const told = outcome.out + outcome.err;
  EXPECT_THAT(told, testing::HasSubstr("hpc.zero_stage = 2 (zero_optimization.stage)"));
  EXPECT_THAT(told, testing::HasSubstr("steps_per_print: metrics.jsonl"));
  auto const by_hand = run(
      dir_.path(), 2,
      words("hand", {"llm.adapter.use", "False", "hpc.ranks_per_client", "2", "hpc.zero_stage", "2",
                     "dataloader.batch_size", "4", "grad.grad_clip", "0.5", "train.optimizer",
                     "{type: AdamW, lr: 0.005, betas: [0.8, 0.99], eps: 0.000001, weight_decay: 0}",
                     "train.scheduler", "{type: WarmupDecayLR, warmup_steps: 3, warmup_min_ratio: 0.1}"}));
  ASSERT_EQ(by_hand.exit_code, 0) << by_hand.err;
  auto const model = [&](char const* name) { return read_text(dir_ / name / "model/model.safetensors"); };
  EXPECT_EQ(model("json"), model("hand"));
  EXPECT_EQ(training_record(dir_ / "json/metrics.jsonl"), training_record(dir_ / "hand/metrics.jsonl"));
  EXPECT_GT(read_events(dir_ / "json/metrics.jsonl").size(), 2U);
  // The run needs the file no more.
  fs::remove(dir_ / "ds.json");
  auto const on = run(dir_.path(), 2,
                      {"fsllm_hpc", "--resume", (dir_ / "json").string(), "federate.total_round_num", "3"});
  EXPECT_EQ(on.exit_code, 0) << on.err;
}

TEST_F(DeepSpeedJson, MistakesEndWithOneMessage) {
  struct {
    int np;
    char const* json;
    Words more;
    char const* message;
  } const mistakes[] = {
      {2, "{\"fp16\": {\n\"enabled\": tru}}", {}, "bad.json:2"},
      {0, "{\"zero_optimisation\": {\"stage\": 2}}", {}, "Did you mean 'zero_optimization.stage'?"},
      {2,
       "{\"train_batch_size\": 8,\n\"train_micro_batch_size_per_gpu\": 3, \"zero_optimization\": {\"stage\": "
       "1}}",
       {},
       "train_batch_size 8 is not 3 rows a rank"},
      {2, "{\"gradient_clipping\": 1}", {"grad.grad_clip", "2"}, "command line: grad.grad_clip = 2 and "},
      {0,
       "{\"optimizer\": {\"type\": \"Adam\", \"params\": {\n\"lr\": -1}}}",
       {},
       "bad.json:2: train.optimizer.lr = "},
      {0,
       "{\"amp\": {\"enabled\": true}, \"sparse_attention\": {\"mode\": \"fixed\"}}",
       {},
       "amp.enabled = true: Apex is not used; write fp16 or bf16; sparse_attention.mode = fixed: attention "
       "sees"},
      {0, "{}", {"llm.accelation.use", "True"}, "(use llm.deepspeed.use)"},
  };
  for (auto const& mistake : mistakes) {
    SCOPED_TRACE(mistake.json);
    expect_message(run_with(mistake.np, write_json("bad.json", mistake.json), mistake.more), mistake.message);
  }
  expect_message(run_with(2, (dir_ / "none.json").string(), {}), "cannot read ");
  expect_message(run_with(2, "", {}), "llm.deepspeed.ds_config");
  EXPECT_FALSE(fs::exists(dir_ / "run"));
}

}  // namespace
}  // namespace fsllm::test
