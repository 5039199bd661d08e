// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include "family.hpp"

namespace fsllm::detail {
namespace {

/// transformers 5 writes "rope_parameters" (theta inside); before, "rope_scaling" beside "rope_theta".
void read_rope(ConfigJson const& json, ModelConfig& config) {
  auto const rope = json.object(json.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  config.rope_theta = rope.number("rope_theta", json.number("rope_theta", 10000));
  auto const type = rope.text("rope_type", rope.text("type", "default"));
  if (type == "default") return;
  if (type == "linear") {
    config.rope_scaling = RopeScaling::linear;
  } else if (type == "llama3") {
    config.rope_scaling = RopeScaling::llama3;
    config.rope_low_freq_factor = rope.number("low_freq_factor", 1);
    config.rope_high_freq_factor = rope.number("high_freq_factor", 4);
    config.rope_original_positions = rope.integer("original_max_position_embeddings");
    if (config.rope_original_positions < 1 || config.rope_low_freq_factor <= 0 ||
        config.rope_high_freq_factor <= config.rope_low_freq_factor)
      rope.refuse(
          "impossible llama3 numbers (0 < low_freq_factor < high_freq_factor is needed). Correct them.");
  } else {
    rope.refuse(fmt::format("rope_type = '{}' (known: default, linear, llama3). Use another model.", type));
  }
  config.rope_factor = rope.number("factor", 1);
  if (config.rope_factor < 1) rope.refuse("'factor' below 1 (it stretches the positions). Correct it.");
}

void read_config(ConfigJson const& json, ModelConfig& config) {
  read_llama_like(json, config);
  config.qkv_bias = config.out_bias = json.boolean("attention_bias", false);
  config.mlp_bias = json.boolean("mlp_bias", false);
}

}  // namespace

void read_llama_like(ConfigJson const& json, ModelConfig& config) {
  config.vocab_size = json.size("vocab_size");
  config.hidden_size = json.size("hidden_size");
  config.intermediate_size = json.size("intermediate_size");
  config.num_layers = json.size("num_hidden_layers", kMostLayers);
  config.num_heads = json.size("num_attention_heads");
  config.num_kv_heads = json.size_or("num_key_value_heads", config.num_heads);
  config.head_dim = json.size_or("head_dim", config.hidden_size / config.num_heads, kLargestHead);
  config.max_positions = json.size_or("max_position_embeddings", 2048);
  config.norm_eps = json.number("rms_norm_eps", 1e-6);
  config.activation = parse_activation(json, "hidden_act", "silu");
  config.tied_embeddings = json.boolean("tie_word_embeddings", false);
  read_rope(json, config);
}

Family llama_family() {
  return {.model_type = "llama",
          .read_config = read_config,
          .prefix = "model.",
          .embedding = "embed_tokens",
          .positions = "",
          .blocks = "layers",
          .final_norm = "norm",
          .head = "lm_head",
          .block = {.norm1 = "input_layernorm",
                    .norm2 = "post_attention_layernorm",
                    .q = "self_attn.q_proj",
                    .k = "self_attn.k_proj",
                    .v = "self_attn.v_proj",
                    .qkv = "",
                    .out = "self_attn.o_proj",
                    .gate = "mlp.gate_proj",
                    .up = "mlp.up_proj",
                    .down = "mlp.down_proj"},
          .lora_targets = {"q_proj", "v_proj"},
          .ignored_suffixes = {".rotary_emb.inv_freq"}};
}

}  // namespace fsllm::detail
