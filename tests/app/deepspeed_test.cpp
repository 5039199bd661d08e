// SPDX-License-Identifier: Apache-2.0
// What DeepSpeed's JSON is in our keys.
#include "deepspeed.hpp"

#include <gmock/gmock.h>

#include <map>

#include "fsllm/app/run_config.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using Values = std::map<std::string, std::string>;

/// The keys that a JSON file gives, without llm.deepspeed.use.
Values mapped(std::string const& json, int64_t ranks = 1, std::string const& yaml = "") {
  auto const config = with_deepspeed(Config::parse(yaml, "run.yaml"), json, "ds.json", ranks);
  auto const before = Config::parse(yaml, "run.yaml");
  Values values;
  for (auto const& key : config.given_keys())
    if (key != "llm.deepspeed.use" && !before.has(key)) values[key] = config.text(key).value();
  return values;
}

std::string error_of(std::string const& json, int64_t ranks = 1, std::string const& yaml = "") {
  try {
    mapped(json, ranks, yaml);
  } catch (Error const& error) {
    return error.what();
  }
  return "";
}

TEST(DeepSpeed, Optimizers) {
  auto const optimizer = [](std::string const& type, std::string const& params) {
    return mapped(R"({"optimizer": {"type": ")" + type + R"(", "params": {)" + params + "}}}");
  };
  Values const adam{{"train.optimizer.type", "AdamW"},
                    {"train.optimizer.lr", "2e-5"},
                    {"train.optimizer.betas", "[0.8, 0.999]"},
                    {"train.optimizer.eps", "1e-8"},
                    {"train.optimizer.weight_decay", "3e-7"}};
  std::string const given = R"("lr": 2e-5, "betas": [0.8, 0.999], "eps": 1e-8, "weight_decay": 3e-7)";
  EXPECT_EQ(optimizer("Adam", given), adam) << "adam_w_mode is true by default";
  EXPECT_EQ(optimizer("AdamW", given + R"(, "adam_w_mode": false)"), adam) << "the name wins";
  auto coupled = adam;
  coupled["train.optimizer.type"] = "Adam";
  EXPECT_EQ(optimizer("Adam", given + R"(, "adam_w_mode": false)"), coupled);
  // Defaults of FusedAdam and DeepSpeedCPUAdam, of torch.optim, and the configuration's where it says auto.
  EXPECT_EQ(optimizer("AdamW", ""), (Values{{"train.optimizer.type", "AdamW"},
                                            {"train.optimizer.weight_decay", "0"},
                                            {"train.optimizer.lr", "0.001"}}));
  EXPECT_EQ(optimizer("Adam", R"("torch_adam": true, "lr": 0.5)"),
            (Values{{"train.optimizer.type", "AdamW"}, {"train.optimizer.lr", "0.5"}}));
  EXPECT_EQ(optimizer("AdamW", R"("lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto")"),
            (Values{{"train.optimizer.type", "AdamW"}}));
  EXPECT_EQ(optimizer("SGD", R"("lr": 0.1, "momentum": 0.9, "nesterov": true)"),
            (Values{{"train.optimizer.type", "SGD"},
                    {"train.optimizer.lr", "0.1"},
                    {"train.optimizer.momentum", "0.9"},
                    {"train.optimizer.nesterov", "true"}}));
  EXPECT_THAT(error_of(R"({"optimizer": {"type": "OneBitAdam"}, "fp16": {"min_loss_scale": 2}})"),
              testing::AllOf(testing::HasSubstr("optimizer.type = OneBitAdam: there are Adam"),
                             testing::HasSubstr("fp16.min_loss_scale = 2: the lowest")));
}

TEST(DeepSpeed, Schedules) {
  EXPECT_EQ(mapped(R"({"optimizer": {"type": "Adam", "params": {"lr": 0.5, "weight_decay": 0}},
                       "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0.001, "warmup_max_lr": 0.004,
                       "warmup_num_steps": 20, "warmup_type": "linear"}}})"),
            (Values{{"train.optimizer.type", "AdamW"},
                    {"train.optimizer.weight_decay", "0"},
                    {"train.optimizer.lr", "0.004"},
                    {"train.scheduler.type", "WarmupLR"},
                    {"train.scheduler.warmup_min_ratio", "0.25"},
                    {"train.scheduler.warmup_steps", "20"},
                    {"train.scheduler.warmup_type", "linear"}}));
  EXPECT_EQ(mapped(R"({"scheduler": {"type": "WarmupLR"}})"),
            (Values{{"train.scheduler.type", "WarmupLR"},
                    {"train.scheduler.warmup_steps", "1000"},
                    {"train.optimizer.lr", "0.001"}}))
      << "DeepSpeed's defaults";
  EXPECT_EQ(mapped(R"({"optimizer": {"type": "SGD", "params": {"lr": 0.2}},
                       "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_min_lr": "auto",
                       "warmup_max_lr": "auto", "warmup_num_steps": "auto", "total_num_steps": 1e3}}})"),
            (Values{{"train.optimizer.type", "SGD"},
                    {"train.optimizer.lr", "0.2"},
                    {"train.scheduler.type", "WarmupDecayLR"},
                    {"train.scheduler.total_steps", "1000"}}));
  EXPECT_EQ(mapped(R"({"scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": 90,
                       "warmup_num_steps": 5, "warmup_min_ratio": 0.1, "cos_min_ratio": 0.01}}})"),
            (Values{{"train.scheduler.type", "WarmupCosineLR"},
                    {"train.scheduler.total_steps", "90"},
                    {"train.scheduler.warmup_steps", "5"},
                    {"train.scheduler.warmup_min_ratio", "0.1"},
                    {"train.scheduler.cos_min_ratio", "0.01"}}));
  EXPECT_THAT(error_of(R"({"scheduler": {"type": "OneCycle"}})"),
              testing::HasSubstr("scheduler.type = OneCycle"));
  EXPECT_THAT(error_of(R"({"scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0.1}}})"),
              testing::HasSubstr("warmup_min_lr = 0.1 (the highest rate is 0.001)"));
}

TEST(DeepSpeed, StagesAndTheirRanks) {
  std::string const two = R"({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}})";
  EXPECT_EQ(mapped(two, 4),
            (Values{{"hpc.zero_stage", "2"}, {"hpc.ranks_per_client", "4"}, {"hpc.offload", "optimizer"}}));
  EXPECT_EQ(mapped(two, 4, "hpc: {ranks_per_client: 2}"),
            (Values{{"hpc.zero_stage", "2"}, {"hpc.offload", "optimizer"}}));
  EXPECT_EQ(mapped(R"({"zero_optimization": {"stage": 0}})", 4), (Values{{"hpc.zero_stage", "0"}}));
  EXPECT_EQ(mapped(R"({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"},
                       "offload_param": {"device": "cpu"}}})",
                   2),
            (Values{{"hpc.zero_stage", "3"}, {"hpc.ranks_per_client", "2"}, {"hpc.offload", "params"}}));
  EXPECT_THAT(error_of(R"({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}})"),
              testing::HasSubstr("offload_param.device = nvme: what is trained lies in memory"));
  EXPECT_THAT(error_of(R"({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}})"),
              testing::HasSubstr("only stage 3"));
}

TEST(DeepSpeed, BatchesAreProducts) {
  std::string const three =
      R"({"train_batch_size": 24, "train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 2})";
  std::string const four = "hpc: {ranks_per_client: 4}";
  Values const wanted{{"dataloader.batch_size", "12"}, {"grad.grad_accum_count", "2"}};
  EXPECT_EQ(mapped(three, 1, four), wanted);
  EXPECT_EQ(mapped(R"({"train_batch_size": 24, "train_micro_batch_size_per_gpu": 3})", 1, four), wanted);
  EXPECT_EQ(mapped(R"({"train_batch_size": 24, "gradient_accumulation_steps": 2})", 1, four), wanted);
  EXPECT_EQ(mapped(R"({"train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 2})", 1, four),
            wanted);
  EXPECT_EQ(mapped(R"({"train_batch_size": 24})", 1, four), (Values{{"dataloader.batch_size", "24"}}));
  EXPECT_EQ(mapped(R"({"train_batch_size": 24, "gradient_accumulation_steps": "auto"})", 1,
                   four + "\ngrad: {grad_accum_count: 3}"),
            (Values{{"dataloader.batch_size", "8"}}));
  EXPECT_EQ(mapped(R"({"gradient_accumulation_steps": 2})"), (Values{{"grad.grad_accum_count", "2"}}));
  EXPECT_EQ(mapped(R"({"train_batch_size": "auto", "gradient_accumulation_steps": "auto"})"), Values{});
  EXPECT_THAT(
      error_of(three),
      testing::StartsWith("ds.json:1: train_batch_size: train_batch_size 24 is not 3 rows a rank times 2 "
                          "accumulated times 1 ranks of a client (hpc.ranks_per_client), which is 6."));
  EXPECT_THAT(error_of(R"({"train_batch_size": 5})", 1, four),
              testing::HasSubstr("5 is not 1.25 rows a rank"));
}

TEST(DeepSpeed, Precision) {
  EXPECT_EQ(
      mapped(R"({"fp16": {"enabled": true, "loss_scale": 128, "initial_scale_power": 8, "hysteresis": 1}})"),
      (Values{{"train.compute_dtype", "fp16"},
              {"train.loss_scale", "128"},
              {"train.initial_scale_power", "8"},
              {"train.loss_scale_hysteresis", "1"},
              {"train.loss_scale_window", "1000"}}));
  EXPECT_EQ(mapped(R"({"bf16": {"enabled": true}, "fp16": {"enabled": false, "loss_scale": 128}})"),
            (Values{{"train.compute_dtype", "bf16"}}));
  EXPECT_EQ(mapped(R"({"bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}})", 1,
                   "train: {compute_dtype: bf16}"),
            Values{});
  EXPECT_THAT(error_of(R"({"bf16": {"enabled": true}, "fp16": {"enabled": true}})"),
              testing::HasSubstr("bf16.enabled = true: fp16.enabled is true as well"));
  EXPECT_THAT(error_of(R"({"fp16": {"enabled": "yes"}})"), testing::HasSubstr("must be true or false"));
}

TEST(DeepSpeed, ContradictionsAreNamedTogether) {
  std::string const json =
      "{\"gradient_clipping\": 1.0,\n\t\"optimizer\": {\"type\": \"Adam\", \"params\": {\n\"lr\": 1e-3, "
      "\"weight_decay\": 0}},\n\"fp16\": {\"enabled\": false}}";
  EXPECT_EQ(mapped(json, 1, "grad: {grad_clip: 1}\ntrain: {optimizer: {lr: 0.001, type: AdamW}}"),
            (Values{{"train.optimizer.weight_decay", "0"}}));
  EXPECT_EQ(
      error_of(json, 1,
               "grad: {grad_clip: 2}\ntrain: {is_enable_half: True,\n optimizer: {lr: 0.01, type: Adam}}"),
      "run.yaml:2: train.is_enable_half = True and ds.json:4: fp16.enabled = false; "
      "run.yaml:3: train.optimizer.type = Adam and ds.json:2: optimizer.type = Adam, which is AdamW; "
      "run.yaml:3: train.optimizer.lr = 0.01 and ds.json:3: optimizer.params.lr = 1e-3; "
      "run.yaml:1: grad.grad_clip = 2 and ds.json:1: gradient_clipping = 1.0 (the configuration and "
      "llm.deepspeed.ds_config say different things; FS-LLM goes by the latter). Leave one of the two out, "
      "or "
      "write auto in the JSON.");
}

TEST(DeepSpeed, ErrorsNameTheLineOfTheJson) {
  EXPECT_EQ(error_of("{\n\"zero_optimization\": {\n\"stag\": 2}}"),
            "ds.json:3: zero_optimization.stag (unknown key). Did you mean 'zero_optimization.stage'?");
  EXPECT_THAT(error_of("{\"fp16\": {\"enabled\": {\"a\": 1}}}"),
              testing::HasSubstr("fp16.enabled.a (unknown key)"));
  EXPECT_THAT(error_of("{\"fp16\": true}"), testing::HasSubstr("fp16 = true (a section"));
  EXPECT_THAT(error_of("{\"steps_per_print\": 1,\n}"), testing::HasSubstr("ds.json:2"));
  EXPECT_THAT(error_of("[1]"), testing::HasSubstr("is a list"));
  EXPECT_THAT(
      error_of(
          "{\"_comment\": \"all: [is] well\", \"tensor_parallel\": {\"autotp_size\": 1}, \"fp16\": null}"),
      "");
  auto config =
      with_deepspeed(Config::parse("model: {type: a}\nfederate: {client_num: 1}\ndata: {root: b}", "r"),
                     "{\n\n\"zero_optimization\":\n {\"stage\": 7}}", "ds.json", 1);
  try {
    load_run_config(config);
    FAIL();
  } catch (Error const& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("ds.json:4: hpc.zero_stage = 7 (must be"));
  }
}

/// The tables of docs/DEEPSPEED.md.
TEST(DeepSpeed, IsDocumentedKeyByKey) {
  std::map<DeepSpeedKey::Use, std::string> tables{
      {DeepSpeedKey::Use::mapped, "| DeepSpeed's key | here |\n|---|---|\n"},
      {DeepSpeedKey::Use::unread, "| DeepSpeed's key | why it has no effect |\n|---|---|\n"},
      {DeepSpeedKey::Use::refused,
       "| DeepSpeed's key | asks for nothing | why it is not available |\n|---|---|---|\n"}};
  for (auto const& key : deepspeed_keys()) {
    auto const off = key.off == nullptr ? std::string() : key.off;
    tables[key.use] +=
        key.use == DeepSpeedKey::Use::refused
            ? fmt::format("| `{}` | {} | {} |\n", key.path, off == "0|1" ? "0, 1" : off, key.what)
            : fmt::format("| `{}` | {} |\n", key.path, key.what);
  }
  auto const page = read_file(test::source_file("docs/DEEPSPEED.md").string());
  for (auto const& [use, table] : tables)
    EXPECT_NE(page.find("\n" + table + "\n"), std::string::npos) << "docs/DEEPSPEED.md needs this table:\n"
                                                                 << table;
}

}  // namespace
}  // namespace fsllm
