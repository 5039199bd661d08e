// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/error.hpp"
#include "fsllm/peft/peft.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

PeftConfig load(std::string const& yaml) {
  auto config = Config::parse(yaml, "run.yaml");
  auto const peft = load_peft_config(config);
  config.finish();
  return peft;
}

/// `llm.adapter` with these args.
std::string with_args(std::string const& args, std::string const& more = "") {
  return "llm:\n  adapter:\n    use: True\n    args: [ { " + args + " } ]\n" + more;
}

std::string const kSaved = "    init_from: " + source_file("tests/reference/qwen2/adapter").string() + "\n";

TEST(PeftConfig, ReadsFsLlmsArguments) {
  auto const config = load(with_args(
      "'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 4, 'lora_alpha': 32, 'lora_dropout': 0.1, "
      "'use_rslora': True, 'target_modules': ['q_proj'], 'bias': 'none', 'task_type': 'CAUSAL_LM'",
      "    mv_to_cpu: True\n"));
  EXPECT_EQ(config.method, "lora");
  EXPECT_EQ(config.rank, 4);
  EXPECT_EQ(config.alpha, 32);
  EXPECT_EQ(config.dropout, 0.1);
  EXPECT_TRUE(config.rslora);
  EXPECT_TRUE(config.mv_to_cpu);
  EXPECT_EQ(config.target_modules, std::vector<std::string>{"q_proj"});
}

TEST(PeftConfig, DefaultsArePefts) {
  auto const config = load("llm: {adapter: {use: True}}");
  EXPECT_EQ(config.method, "lora");
  EXPECT_EQ(config.rank, 8);
  EXPECT_EQ(config.alpha, 8);
  EXPECT_EQ(config.dropout, 0);
  EXPECT_TRUE(config.target_modules.empty());
}

TEST(PeftConfig, WithoutUseThereIsNoMethod) {
  EXPECT_EQ(
      load("llm: {adapter: {use: False, args: [{adapter_method: prefix, num_virtual_tokens: 3}]}}").method,
      "");
  EXPECT_EQ(load("{}").method, "");
}

TEST(PeftConfig, InitFromFillsWhatTheYamlLeavesOpen) {
  auto const config = load(with_args("'r': 4, 'use_rslora': True", kSaved));
  EXPECT_EQ(config.rank, 4);
  EXPECT_EQ(config.alpha, 6);
  EXPECT_TRUE(config.rslora);
  EXPECT_EQ(config.target_modules.size(), 7U);
}

TEST(PeftConfig, AllLinearAgreesWithTheListThatASavedAdapterHolds) {
  auto const config = load(with_args("'target_modules': ['all-linear']", kSaved));
  EXPECT_EQ(config.target_modules, std::vector<std::string>{"all-linear"});
}

struct BadArguments {
  std::string args, more, message;
};
class BadPeftConfig : public testing::TestWithParam<BadArguments> {};
TEST_P(BadPeftConfig, IsNamed) {
  EXPECT_ERROR(load(with_args(GetParam().args, GetParam().more)), GetParam().message);
}
INSTANTIATE_TEST_SUITE_P(
    PeftConfig, BadPeftConfig,
    testing::Values(
        BadArguments{"'adapter_package': 'adapterhub'", "",
                     "adapter_package = 'adapterhub' (not available in this version). Use 'peft'."},
        BadArguments{"'adapter_package': 'pfet'", "",
                     "adapter_package = 'pfet' (not a known name). Did you mean 'peft'?"},
        BadArguments{"'adapter_method': 'prefix'", "",
                     "adapter_method = 'prefix' (not available in this version). Use 'lora'."},
        BadArguments{"'adapter_method': 'prompt'", "",
                     "adapter_method = 'prompt' (not available in this version)"},
        BadArguments{"'adapter_method': 'p-tuning'", "",
                     "adapter_method = 'p-tuning' (not available in this version)"},
        BadArguments{"'adapter_method': 'lroa'", "",
                     "adapter_method = 'lroa' (not a known name). Did you mean 'lora'?"},
        BadArguments{"'r': 0", "", "run.yaml:4: llm.adapter.args[0].r = 0 (must be at least 1)"},
        BadArguments{"'r': 4.5", "", "r = '4.5' (a whole number is needed)"},
        BadArguments{"'lora_alpha': 0", "", "lora_alpha = 0 (must be more than 0)"},
        BadArguments{"'lora_dropout': 1", "", "lora_dropout = 1 (must be in [0, 1))"},
        BadArguments{"'bias': 'all'", "", "bias = 'all' (not available in this version). Use none."},
        BadArguments{"'use_dora': True", "", "use_dora = 'True' (not available in this version). Use False."},
        BadArguments{"'modules_to_save': ['lm_head']", "", "modules_to_save = '[lm_head]' (not available"},
        BadArguments{"'rr': 4", "", "Did you mean"},
        BadArguments{"'r': 5", kSaved,
                     "run.yaml:4: llm.adapter.args[0].r = 5 (the adapter of llm.adapter.init_from, "},
        BadArguments{"'lora_alpha': 5", kSaved, "lora_alpha = 5 (the adapter of"},
        BadArguments{"'lora_dropout': 0.5", kSaved, "lora_dropout = 0.5 (the adapter of"},
        BadArguments{"'use_rslora': False", kSaved, "use_rslora = false (the adapter of"},
        BadArguments{"'target_modules': ['q_proj']", kSaved, "target_modules = [q_proj] (the adapter of"},
        BadArguments{"'r': 4 }, { 'r': 4", "", "llm.adapter.args has 2 entries (one adapter is trained)"},
        BadArguments{"'r': 4", "    init_from: /nowhere\n", "no adapter_config.json in /nowhere"}));

TEST(PeftConfig, InitFromNeedsUse) {
  EXPECT_ERROR(load("llm: {adapter: {use: False, init_from: x}}"), "llm.adapter.use is False");
}

TEST(PeftConfig, KnownMethodsAreBuilt) {
  EXPECT_EQ(known_peft_methods(), std::vector<std::string>{"lora"});
}

}  // namespace
}  // namespace fsllm::test
