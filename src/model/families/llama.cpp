// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"

namespace fsllm::detail {
namespace {

void read_llama(ConfigJson const& json, ModelConfig& config) {
  read_llama_like(json, config);
  read_rope(json, config);
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
  if (config.head_dim == 0 && !json.has("head_dim")) config.head_dim = even_head_dim(json, config);
  config.head_dim = json.size_or("head_dim", config.head_dim, kLargestHead);
  config.max_positions = json.size_or("max_position_embeddings", 2048);
  config.norm_eps = json.number("rms_norm_eps", 1e-6);
  config.activation = parse_activation(json, "hidden_act", "silu");
  config.tied_embeddings = json.boolean("tie_word_embeddings", false);
}

Family llama_family() {
  return {.model_type = "llama",
          .read_config = read_llama,
          .prefix = "model.",
          .embedding = "embed_tokens",
          .blocks = "layers",
          .final_norm = "norm",
          .head = "lm_head",
          .block = {.norm1 = "input_layernorm",
                    .norm2 = "post_attention_layernorm",
                    .q = "self_attn.q_proj",
                    .k = "self_attn.k_proj",
                    .v = "self_attn.v_proj",
                    .out = "self_attn.o_proj",
                    .gate = "mlp.gate_proj",
                    .up = "mlp.up_proj",
                    .down = "mlp.down_proj"},
          .lora_targets = {"q_proj", "v_proj"},
          .ia3_targets = {"k_proj", "v_proj", "down_proj"},
          .ia3_feedforward = {"down_proj"},
          .ignored_suffixes = {".rotary_emb.inv_freq"}};
}

}  // namespace fsllm::detail
