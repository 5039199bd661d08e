// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"

namespace fsllm::detail {
namespace {

void read_config(ConfigJson const& json, ModelConfig& config) {
  config.vocab_size = json.size("vocab_size");
  config.hidden_size = json.size("n_embd");
  config.intermediate_size = json.size_or("n_inner", 4 * config.hidden_size);
  config.num_layers = json.size("n_layer", kMostLayers);
  config.num_heads = config.num_kv_heads = json.size("n_head");
  config.head_dim = config.hidden_size / config.num_heads;
  config.max_positions = json.size_or("n_positions", json.size_or("n_ctx", 1024));
  config.norm = NormKind::layer;
  config.norm_eps = json.number("layer_norm_epsilon", 1e-5);
  config.position = PositionKind::learned;
  config.activation = parse_activation(json, "activation_function", "gelu_new");
  config.gated_mlp = false;
  config.fused_qkv = config.conv1d = true;
  config.qkv_bias = config.out_bias = config.mlp_bias = true;
  config.tied_embeddings = json.boolean("tie_word_embeddings", true);
  if (!json.boolean("scale_attn_weights", true) || json.boolean("scale_attn_by_inverse_layer_idx", false))
    json.refuse(
        "attention scaled another way than 1/sqrt(head size) (scale_attn_weights, "
        "scale_attn_by_inverse_layer_idx; not available in this version). Use another model.");
}

}  // namespace

Family gpt2_family() {
  return {.model_type = "gpt2",
          .read_config = read_config,
          .prefix = "transformer.",
          .embedding = "wte",
          .positions = "wpe",
          .blocks = "h",
          .final_norm = "ln_f",
          .head = "lm_head",
          .block = {.norm1 = "ln_1",
                    .norm2 = "ln_2",
                    .q = "",
                    .k = "",
                    .v = "",
                    .qkv = "attn.c_attn",
                    .out = "attn.c_proj",
                    .gate = "",
                    .up = "mlp.c_fc",
                    .down = "mlp.c_proj"},
          .lora_targets = {"c_attn"},
          .ignored_suffixes = {".attn.bias", ".attn.masked_bias"}};
}

}  // namespace fsllm::detail
