// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/peft/peft.hpp"
#include "peft_fixture.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

std::string const kSaved = "    init_from: " + source_file("tests/reference/qwen2/adapter").string() + "\n";

/// What adapter_config.json would say.
nlohmann::ordered_json written(PeftConfig const& config, std::string const& model = "qwen2") {
  auto const loaded = load_model(load_reference(model).dir);
  return make_peft(config, *loaded, 0)->adapter_config("base");
}

TEST(PeftConfig, ReadsFsLlmsArguments) {
  auto const config = load_peft(adapter_yaml(
      "'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 4, 'lora_alpha': 32, 'lora_dropout': 0.1, "
      "'use_rslora': True, 'target_modules': ['q_proj'], 'bias': 'none', 'task_type': 'CAUSAL_LM'",
      "    mv_to_cpu: True\n"));
  EXPECT_EQ(config.method, "lora");
  auto const json = written(config);
  EXPECT_EQ(json.at("r"), 4);
  EXPECT_EQ(json.at("lora_alpha"), 32);
  EXPECT_EQ(json.at("lora_dropout"), 0.1);
  EXPECT_EQ(json.at("use_rslora"), true);
  EXPECT_TRUE(config.mv_to_cpu);
  EXPECT_EQ(json.at("target_modules"), std::vector<std::string>{"q_proj"});
}

TEST(PeftConfig, DefaultsArePefts) {
  auto const config = load_peft("llm: {adapter: {use: True}}");
  EXPECT_EQ(config.method, "lora");
  auto const json = written(config);
  EXPECT_EQ(json.at("r"), 8);
  EXPECT_EQ(json.at("lora_alpha"), 8);
  EXPECT_EQ(json.at("lora_dropout"), 0);
  EXPECT_EQ(json.at("target_modules"), (std::vector<std::string>{"q_proj", "v_proj"}));
}

TEST(PeftConfig, WithoutUseThereIsNoMethod) {
  EXPECT_EQ(load_peft("llm: {adapter: {use: False, args: [{adapter_method: prefix, num_virtual_tokens: 3}]}}")
                .method,
            "");
  EXPECT_EQ(load_peft("{}").method, "");
}

TEST(PeftConfig, InitFromFillsWhatTheYamlLeavesOpen) {
  auto const config = load_peft(adapter_yaml("'r': 4, 'use_rslora': True", kSaved));
  auto const json = written(config);
  EXPECT_EQ(json.at("r"), 4);
  EXPECT_EQ(json.at("lora_alpha"), 6);
  EXPECT_EQ(json.at("use_rslora"), true);
  EXPECT_EQ(json.at("target_modules").size(), 7U);
}

TEST(PeftConfig, AllLinearAgreesWithTheListThatASavedAdapterHolds) {
  auto const config = load_peft(adapter_yaml("'target_modules': ['all-linear']", kSaved));
  EXPECT_EQ(written(config).at("target_modules").size(), 7U);
}

struct BadArguments {
  std::string args, more, message;
};
class BadPeftConfig : public testing::TestWithParam<BadArguments> {};
TEST_P(BadPeftConfig, IsNamed) {
  EXPECT_ERROR(load_peft(adapter_yaml(GetParam().args, GetParam().more)), GetParam().message);
}
INSTANTIATE_TEST_SUITE_P(
    PeftConfig, BadPeftConfig,
    testing::Values(
        BadArguments{"'adapter_package': 'adapterhub', 'adapter_method': 'prompt'", "",
                     "adapter_method = 'prompt' (not a name of adapterhub's)"},
        BadArguments{"'adapter_package': 'pfet'", "",
                     "adapter_package = 'pfet' (not a known name). Did you mean 'peft'?"},
        BadArguments{"'adapter_method': 'prefix', 'num_virtual_tokens': 0", "",
                     "num_virtual_tokens = 0 (must be at least 1)"},
        BadArguments{"'adapter_method': 'prefix', 'prefix_projection': 3", "",
                     "prefix_projection = '3' (must be True or False)"},
        BadArguments{"'adapter_method': 'prefix', 'encoder_hidden_size': -1", "",
                     "encoder_hidden_size = -1 (must be at least 0)"},
        BadArguments{"'adapter_method': 'prompt', 'prompt_tuning_init': 'TXT'", "", "Did you mean 'TEXT'"},
        BadArguments{"'adapter_method': 'p-tuning', 'encoder_reparameterization_type': 'GRU'", "",
                     "encoder_reparameterization_type = 'GRU' (must be one of MLP, LSTM)"},
        BadArguments{"'adapter_method': 'p-tuning', 'encoder_dropout': 1", "",
                     "encoder_dropout = 1 (must be in"},
        BadArguments{"'adapter_method': 'p-tuning', 'encoder_num_layers': 0", "",
                     "encoder_num_layers = 0 (must be at least 1)"},
        BadArguments{"'adapter_method': 'lroa'", "",
                     "adapter_method = 'lroa' (not a known name). Did you mean 'lora'?"},
        BadArguments{"'r': 0", "", "run.yaml:4: llm.adapter.args[0].r = 0 (must be at least 1)"},
        BadArguments{"'r': 4.5", "", "r = '4.5' (a whole number is needed)"},
        BadArguments{"'lora_alpha': 0", "", "lora_alpha = 0 (must be more than 0)"},
        BadArguments{"'lora_dropout': 1", "", "lora_dropout = 1 (must be in [0, 1))"},
        BadArguments{"'bias': 'lora'", "", "bias = 'lora' (must be one of none, all, lora_only)"},
        BadArguments{"'rank_pattern': {'q_proj': 0}", "", "rank_pattern.q_proj = 0 (must be at least 1)"},
        BadArguments{"'rank_pattern': {'q_proj': 1.5}", "", "q_proj: 1.5 (a whole number is needed)"},
        BadArguments{"'alpha_pattern': 4", "", "alpha_pattern is not a map"},
        BadArguments{"'init_lora_weights': False", "", "init_lora_weights = false (not available"},
        BadArguments{"'modules_to_save': ['lm_head']", "", "modules_to_save = [lm_head] (not available"},
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
  EXPECT_ERROR(load_peft("llm: {adapter: {use: False, init_from: x}}"), "llm.adapter.use is False");
}

TEST(PeftConfig, ArgumentsOfAnotherMethodMeanNothing) {
  auto const json = written(
      peft_of("adapter_method: prompt, r: 8, lora_alpha: 16, lora_dropout: 0.05, num_virtual_tokens: 3"));
  EXPECT_EQ(json.at("peft_type"), "PROMPT_TUNING");
  EXPECT_EQ(json.at("num_virtual_tokens"), 3);
  EXPECT_FALSE(json.contains("r"));
}

/// What FS-LLM's names of AdapterHub's methods are here (llm/model/adapter_builder.py).
TEST(PeftConfig, AdapterHubsNamesHaveItsDefaults) {
  std::map<std::string, char const*> const names = {
      {"lora", R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16})"},
      {"prefix", R"({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 30, "prefix_projection": true,
                     "encoder_hidden_size": 512})"},
      {"ia_3", R"({"peft_type": "IA3"})"},
      {"bottleneck", R"({"peft_type": "BOTTLENECK", "architecture": "houlsby", "reduction_factor": 16,
                         "mlp_reduction_factor": 0, "non_linearity": "relu", "phm_dim": 0, "inv_adapter": "none"})"},
      {"lang", R"({"peft_type": "BOTTLENECK", "architecture": "pfeiffer", "reduction_factor": 16,
                   "non_linearity": "relu", "inv_adapter": "nice", "inv_adapter_reduction_factor": 2})"},
      {"compacter", R"({"peft_type": "BOTTLENECK", "architecture": "houlsby", "reduction_factor": 32,
                        "non_linearity": "gelu", "phm_dim": 4, "scaling": 1.0})"},
      {"union", R"({"peft_type": "BOTTLENECK", "architecture": "houlsby", "reduction_factor": 16,
                    "mlp_reduction_factor": 2, "non_linearity": "relu", "scaling": 1.0})"},
      {"mam", R"({"peft_type": "MAM", "num_virtual_tokens": 30, "prefix_projection": true,
                  "encoder_hidden_size": 800, "architecture": "parallel", "reduction_factor": 2, "scaling": 4.0,
                  "non_linearity": "relu"})"},
  };
  for (auto const& [name, expected] : names) {
    auto const json = written(peft_of("adapter_package: adapterhub, adapter_method: " + name));
    auto const wanted = nlohmann::json::parse(expected);
    for (auto const& [key, value] : wanted.items()) EXPECT_EQ(json.at(key), value) << name << " " << key;
  }
}

TEST(PeftConfig, TextNeedsTokens) {
  EXPECT_ERROR(written(peft_of("adapter_method: prompt, prompt_tuning_init: TEXT")),
               "prompt_tuning_init_text = '' (prompt_tuning_init: TEXT needs a text with tokens)");
}

TEST(PeftConfig, KnownMethodsAreBuilt) {
  auto const names = known_peft_methods();
  for (auto const& name : names)
    EXPECT_FALSE(written(peft_of("adapter_method: " + name)).at("peft_type").empty()) << name;
  EXPECT_GE(names.size(), 4U);
}

}  // namespace
}  // namespace fsllm::test
