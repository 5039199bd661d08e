// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/config.hpp"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

/// Reads the config of a fixture after `patch` (RFC 7386: null removes a key).
ModelConfig patched(std::string const& name, json const& patch = json::object()) {
  auto config = read_json(load_reference(name).dir / "config.json");
  config.merge_patch(patch);
  TempDir dir;
  std::ofstream(dir / "config.json") << config;
  return load_model_config(dir.path());
}

TEST(ModelConfig, ReadsEveryFamily) {
  auto const llama = patched("llama");
  EXPECT_EQ(llama.architecture, "LlamaForCausalLM");
  EXPECT_EQ(llama.num_kv_heads, 2);
  EXPECT_EQ(llama.head_dim, 8);
  EXPECT_EQ(llama.rope_theta, 10000) << "inside rope_parameters";
  auto const llama3 = patched("llama3");
  EXPECT_EQ(llama3.rope_scaling, RopeScaling::llama3);
  EXPECT_EQ(llama3.rope_factor, 8);
  EXPECT_EQ(llama3.rope_theta, 500) << "beside rope_scaling";
  EXPECT_TRUE(llama3.mlp_bias && llama3.out_bias && llama3.tied_embeddings);
  EXPECT_EQ(patched("mistral").layer_windows, (std::vector<int64_t>{6, 6}));
  EXPECT_EQ(patched("qwen2").layer_windows, (std::vector<int64_t>{0, 5}));
  auto const gpt2 = patched("gpt2");
  EXPECT_EQ(gpt2.intermediate_size, 128);
  EXPECT_EQ(gpt2.activation, ActivationKind::gelu_tanh);
  EXPECT_TRUE(gpt2.conv1d && gpt2.tied_embeddings);
}

TEST(ModelConfig, RopeIsReadAsTransformersReadsIt) {
  auto const both = patched("llama", {{"rope_scaling", {{"type", "linear"}, {"factor", 4}}}});
  EXPECT_EQ(both.rope_scaling, RopeScaling::linear) << "before rope_parameters";
  EXPECT_EQ(patched("llama", {{"rope_scaling", json::object()}}).rope_scaling, RopeScaling::none);
  EXPECT_EQ(patched("llama", {{"rope_theta", 500}, {"rope_scaling", {{"type", "default"}}}}).rope_theta, 500);
  auto const yarn = patched("llama", {{"rope_parameters", {{"rope_type", "yarn"}, {"factor", 4}}}});
  EXPECT_EQ(yarn.rope_original_positions, yarn.max_positions);
  EXPECT_EQ(yarn.rope_factor, 4);
  auto const inside = json{{"type", "longrope"},
                           {"original_max_position_embeddings", 12},
                           {"short_factor", {1, 1, 1, 1}},
                           {"long_factor", {2, 2, 2, 2}}};
  EXPECT_EQ(patched("llama", {{"rope_scaling", inside}}).rope_original_positions, 12);
  EXPECT_EQ(patched("phi3", {{"rope_scaling", inside}, {"original_max_position_embeddings", nullptr}})
                .rope_original_positions,
            4096)
      << "Phi3Config's own default goes before";
}

TEST(ModelConfig, DropoutThatAConfigLeavesOutIsThatOfTransformers) {
  json const none = {{"attn_pdrop", nullptr}, {"embd_pdrop", nullptr}, {"resid_pdrop", nullptr}};
  auto const gpt2 = patched("gpt2", none), gptj = patched("gptj", none);
  EXPECT_EQ(gpt2.attention_dropout, 0.1);
  EXPECT_EQ(gpt2.embedding_dropout, 0.1);
  EXPECT_EQ(gpt2.residual_dropout, 0.1);
  EXPECT_EQ(gptj.attention_dropout + gptj.embedding_dropout + gptj.residual_dropout, 0);
  EXPECT_EQ(patched("opt", {{"dropout", nullptr}}).residual_dropout, 0.1);
}

TEST(ModelConfig, FamiliesSayWhatSetsThemApart) {
  auto const qwen3 = patched("qwen3");
  EXPECT_TRUE(qwen3.qk_norm && !qwen3.qkv_bias && !qwen3.tied_embeddings);
  EXPECT_EQ(qwen3.head_dim, 12);
  EXPECT_EQ(patched("qwen3", {{"head_dim", nullptr}}).head_dim, 128) << "transformers' default";
  EXPECT_EQ(patched("qwen3_tied").layer_windows, (std::vector<int64_t>{0, 5}));
  auto const gemma = patched("gemma");
  EXPECT_EQ(gemma.activation, ActivationKind::gelu_tanh) << "'gelu' in the first files";
  EXPECT_TRUE(gemma.tied_embeddings);
  EXPECT_EQ(gemma.embedding_scale, std::sqrt(32));
  EXPECT_EQ(patched("gemma", {{"head_dim", nullptr}}).head_dim, 256) << "transformers' default";
  auto const opt = patched("opt_350m");
  EXPECT_EQ(opt.block_form, BlockForm::post_norm);
  EXPECT_FALSE(opt.final_norm);
  EXPECT_EQ(opt.embedding_size, 20);
  EXPECT_EQ(patched("opt", {{"word_embed_proj_dim", nullptr}}).embedding_size, 32);
  auto const neox = patched("gpt_neox");
  EXPECT_EQ(neox.block_form, BlockForm::parallel);
  EXPECT_EQ(neox.rotary_dim, 4) << "rotary_pct of files before transformers 5";
  EXPECT_EQ(patched("gpt_neox", {{"rotary_pct", nullptr}}).rotary_dim, 2) << "a quarter by default";
  EXPECT_EQ(patched("gpt_neox_sequential").block_form, BlockForm::pre_norm);
  EXPECT_EQ(patched("gpt_neox_sequential").rope_theta, 500);
}

TEST(ModelConfig, WindowsFollowTheFamilysRules) {
  auto config = read_json(load_reference("mistral").dir / "config.json");
  EXPECT_EQ(patched("qwen2", {{"use_sliding_window", false}}).window_of(1), 0);
  EXPECT_EQ(patched("qwen2", {{"layer_types", nullptr}, {"max_window_layers", 0}}).window_of(0), 5);
  config["sliding_window"] = nullptr;
  TempDir dir;
  std::ofstream(dir / "config.json") << config;
  EXPECT_EQ(load_model_config(dir.path()).window_of(0), 0);
  config.erase("sliding_window");
  std::ofstream(dir / "config.json") << config;
  EXPECT_EQ(load_model_config(dir.path()).window_of(0), 4096);
}

TEST(ModelConfig, EosMayBeAListAndComeFromTheGenerationConfig) {
  auto config = read_json(load_reference("llama").dir / "config.json");
  config["eos_token_id"] = {2, 7};
  TempDir dir;
  std::ofstream(dir / "config.json") << config;
  std::ofstream(dir / "generation_config.json") << R"({"eos_token_id": [7, 9]})";
  auto const read = load_model_config(dir.path());
  EXPECT_EQ(read.eos_ids, (std::vector<int32_t>{2, 7, 9}));
  EXPECT_EQ(read.eos_id, 2);
  EXPECT_EQ(read.bos_id, 1);
  EXPECT_EQ(read.pad_id, std::nullopt);
}

struct BadConfig {
  char const* family;
  char const* patch;
  char const* message;
};

class Bad : public testing::TestWithParam<BadConfig> {};
TEST_P(Bad, IsNamed) {
  EXPECT_ERROR(patched(GetParam().family, json::parse(GetParam().patch)), GetParam().message);
}
INSTANTIATE_TEST_SUITE_P(
    ModelConfig, Bad,
    testing::Values(
        BadConfig{"llama", R"({"model_type": "lama"})",
                  "model_type = 'lama' (not a model family of this version). Did you mean 'llama'?"},
        BadConfig{"llama", R"({"model_type": null})", "model_type = ''"},
        BadConfig{"llama", R"({"hidden_size": null})", "'hidden_size' is missing"},
        BadConfig{"llama", R"({"hidden_size": "64"})", "'hidden_size' = \"64\" (a whole number is needed)"},
        BadConfig{"llama", R"({"hidden_size": 1e30})", "'hidden_size' = 1e+30 (a whole number is needed)"},
        BadConfig{"llama", R"({"vocab_size": -3})", "'vocab_size' = -3 (must be in 1 .. 268435456)"},
        BadConfig{"llama", R"({"num_hidden_layers": 18446744073709551615})",
                  "'num_hidden_layers' = 18446744073709551615"},
        BadConfig{"llama", R"({"num_hidden_layers": 100000000})", "must be in 1 .. 10000"},
        BadConfig{"llama", R"({"num_key_value_heads": 3})",
                  "4 attention heads (not a multiple of 3 key/value heads)"},
        BadConfig{"llama", R"({"num_attention_heads": 6, "head_dim": null})",
                  "config.json: hidden size 32 (not a multiple of 6 heads)"},
        BadConfig{"llama", R"({"head_dim": 7})", "head size 7 (rotary positions need an even one)"},
        BadConfig{"llama", R"({"hidden_act": "gelo"})",
                  "'hidden_act' = 'gelo' (not a known activation). Did you mean 'gelu'?"},
        BadConfig{"llama", R"({"rms_norm_eps": 0})", "must be positive"},
        BadConfig{"llama", R"({"rms_norm_eps": true})", "'rms_norm_eps' = true (a number is needed)"},
        BadConfig{"llama", R"({"tie_word_embeddings": 1})",
                  "'tie_word_embeddings' = 1 (true or false is needed)"},
        BadConfig{"llama", R"({"architectures": "x"})",
                  "'architectures' = \"x\" (a list of strings is needed)"},
        BadConfig{"llama", R"({"architectures": [1]})", "'architectures' holds 1 (a string is needed)"},
        BadConfig{"llama", R"({"eos_token_id": -2})", "'eos_token_id' = -2 (token ids are needed)"},
        BadConfig{"llama", R"({"rope_parameters": 3})", "'rope_parameters' = 3 (an object is needed)"},
        BadConfig{"llama", R"({"rope_parameters": {"rope_type": "proportional"}})",
                  "rope_type = 'proportional' (known: default, linear, dynamic, llama3, yarn, longrope, su)"},
        BadConfig{"llama", R"({"rope_parameters": {"rope_type": "linear"}})",
                  "rope_parameters: 'factor' is missing"},
        BadConfig{"llama", R"({"rope_scaling": {"type": "dynamic"}})", "rope_scaling: 'factor' is missing"},
        BadConfig{"llama", R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})",
                  "rope_parameters: parameters of their own for full_attention"},
        BadConfig{
            "llama", R"({"rope_parameters": {"rope_theta": 500}, "rope_scaling": {"type": "linear",
                  "factor": 2}})",
            "rope_scaling: no 'rope_theta' ('rope_parameters' has 500, and 'rope_scaling' replaces it)"},
        BadConfig{"phi3", R"({"rope_parameters": {"partial_rotary_factor": 0.75},
                  "rope_scaling": {"type": "linear", "factor": 2}})",
                  "rope_scaling: no 'partial_rotary_factor' ('rope_parameters' has 0.75"},
        BadConfig{"llama",
                  R"({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 1}})",
                  "'original_max_position_embeddings' = 1 (at least 2 are needed)"},
        BadConfig{"llama",
                  R"({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 16,
                      "beta_fast": 0.5}})",
                  "impossible yarn numbers"},
        BadConfig{"llama",
                  R"({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 16,
                      "attention_factor": 0}})",
                  "'attention_factor' = 0 (must be above 0)"},
        BadConfig{"llama", R"({"rope_parameters": {"rope_type": "dynamic", "factor": 0.5}})",
                  "'factor' below 1"},
        BadConfig{"phi3", R"({"rope_parameters": {"rope_type": "longrope", "long_factor": [1, 2, 3, 4]}})",
                  "'short_factor' = null (a list of numbers is needed)"},
        BadConfig{"phi3", R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 2]}})",
                  "'short_factor' holds 2 numbers (one for each of the 4 frequencies is needed)"},
        BadConfig{"phi3", R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 1, 1, 0]}})",
                  "'short_factor' holds 0 (numbers above 0 are needed)"},
        BadConfig{"llama3", R"({"rope_scaling": {"factor": 0.5}})", "'factor' below 1"},
        BadConfig{"llama3", R"({"rope_scaling": {"high_freq_factor": 1}})", "impossible llama3 numbers"},
        BadConfig{"mistral", R"({"sliding_window": -1})", "'sliding_window' is negative"},
        BadConfig{"qwen2", R"({"layer_types": ["full_attention"]})", "1 'layer_types' (2 layers)"},
        BadConfig{"qwen3", R"({"head_dim": 0})", "config.json: 'head_dim' = 0 (must be in 1 .. 65536)"},
        BadConfig{"qwen3", R"({"num_attention_heads": null})",
                  "config.json: 'num_attention_heads' is missing"},
        BadConfig{"qwen3_tied", R"({"sliding_window": -5})", "config.json: negative 'sliding_window'"},
        BadConfig{"gpt2", R"({"attn_pdrop": 1})", "config.json: 'attn_pdrop' = 1 (must be in [0, 1))"},
        BadConfig{"bloom", R"({"hidden_dropout": -0.1})", "'hidden_dropout' = -0.1 (must be in [0, 1))"},
        BadConfig{"falcon", R"({"hidden_dropout": 0.1})", "not available in this version for Falcon"},
        BadConfig{"opt", R"({"ffn_dim": null})", "config.json: 'ffn_dim' is missing"},
        BadConfig{"opt", R"({"word_embed_proj_dim": 0})",
                  "config.json: 'word_embed_proj_dim' = 0 (must be in"},
        BadConfig{"opt", R"({"layer_norm_elementwise_affine": false})",
                  "'layer_norm_elementwise_affine' = false"},
        BadConfig{"gpt_neox", R"({"intermediate_size": -1})", "config.json: 'intermediate_size' = -1"},
        BadConfig{"gpt_neox", R"({"rotary_pct": 1.5})",
                  "config.json: 'rotary_pct' = 1.5 (a part of the head"},
        BadConfig{"gpt_neox", R"({"rotary_pct": 0.4})", "3 of the 8 dimensions of a head are turned"},
        BadConfig{"gpt_neox_sequential", R"({"rope_parameters": {"partial_rotary_factor": 0}})",
                  "config.json: 'partial_rotary_factor' = 0 (a part of the head"},
        BadConfig{"gpt_neox", R"({"num_attention_heads": 5})", "hidden size 32 (not a multiple of 5 heads)"},
        BadConfig{"bloom", R"({"n_head": 5})", "hidden size 32 (not a multiple of 5 heads)"},
        BadConfig{"bloom", R"({"apply_residual_connection_post_layernorm": true})",
                  "not available in this version"},
        BadConfig{"gpt_neo", R"({"attention_types": [[["global", "local"], 3]]})",
                  "'attention_types' describes 6 layers ('num_layers' = 2)"},
        BadConfig{"gpt_neo", R"({"attention_types": [["global", 2]]})", "is needed). Correct it."},
        BadConfig{"gpt_neo", R"({"attention_types": [[["all"], 2]]})", "'attention_types' holds 'all'"},
        BadConfig{"gpt_neo", R"({"attention_types": [[["local"], 1000000000000]]})",
                  "is needed). Correct it."},
        BadConfig{"falcon", R"({"alibi": true})", "config.json: 'alibi' = true (Falcon RW is not available"},
        BadConfig{"falcon_11b", R"({"num_ln_in_parallel_attn": null})", "2 norms before attention and MLP"},
        BadConfig{"falcon_11b", R"({"num_kv_heads": 3})", "4 attention heads (not a multiple of 3 key/value"},
        BadConfig{"gptj", R"({"n_layer": 0})", "config.json: 'n_layer' = 0"},
        BadConfig{"gptj", R"({"rotary_dim": 10})", "10 of the 8 dimensions of a head are turned"},
        BadConfig{"gptj", R"({"rotary_dim": 3})", "3 of the 8 dimensions of a head are turned"},
        BadConfig{"gptj", R"({"rotary_dim": -2})", "config.json: 'rotary_dim' = -2 (must be in 1 .."},
        BadConfig{"phi3", R"({"rope_parameters": {"partial_rotary_factor": 1.25}})",
                  "config.json: 'partial_rotary_factor' = 1.25 (a part of the head's 8 dimensions, above 0 "
                  "and up to 1, is"},
        BadConfig{"phi3", R"({"rope_parameters": {"partial_rotary_factor": -0.5}})",
                  "config.json: 'partial_rotary_factor' = -0.5 (a part of the head"},
        BadConfig{"phi3", R"({"rope_parameters": {"partial_rotary_factor": 0.1}})",
                  "'partial_rotary_factor' = 0.1 (a part of the head's 8 dimensions"},
        BadConfig{"gpt_neox", R"({"rotary_pct": 0})", "config.json: 'rotary_pct' = 0 (a part of the head"},
        BadConfig{"phi3", R"({"sliding_window": -1})", "config.json: 'sliding_window' is negative"},
        BadConfig{"gemma2", R"({"query_pre_attn_scalar": 0})", "config.json: 'query_pre_attn_scalar' = 0"},
        BadConfig{"gemma2", R"({"attn_logit_softcapping": -2})",
                  "config.json: 'attn_logit_softcapping' = -2"},
        BadConfig{"gpt2", R"({"n_head": 5})", "hidden size 32 (not a multiple of 5 heads)"},
        BadConfig{"gpt2", R"({"scale_attn_by_inverse_layer_idx": true})", "not available in this version"}));

TEST(ModelConfig, MissingAndBrokenFilesAreNamed) {
  TempDir dir;
  EXPECT_ERROR(load_model_config(dir.path()), "no config.json in " + dir.path().string());
  std::ofstream(dir / "config.json") << "[1]";
  EXPECT_ERROR(load_model_config(dir.path()), "config.json: not a JSON object");
  std::ofstream(dir / "config.json") << "{\"a\": ";
  EXPECT_ERROR(load_model_config(dir.path()), "config.json");
}

}  // namespace
}  // namespace fsllm::test
