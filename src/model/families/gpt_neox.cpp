// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"

namespace fsllm::detail {
namespace {

/// Attention and MLP side by side, a part of each head turned (Black et al. 2022, section 2; Pythia).
void read_gpt_neox(ConfigJson const& json, ModelConfig& config) {
  config.hidden_size = json.size("hidden_size");
  config.num_layers = json.size("num_hidden_layers", kMostLayers);
  config.num_heads = json.size("num_attention_heads");
  config.intermediate_size = json.size("intermediate_size");
  config.max_positions = json.size_or("max_position_embeddings", 2048);
  read_gpt_like(json, config);
  config.embedding_dropout = config.residual_dropout = json.probability("hidden_dropout", 0);
  config.norm_eps = json.number("layer_norm_eps", 1e-5);
  config.activation = parse_activation(json, "hidden_act", "gelu");
  config.qkv = QkvKind::per_head;
  config.qkv_bias = config.out_bias = json.boolean("attention_bias", true);
  config.tied_embeddings = json.boolean("tie_word_embeddings", false);
  config.block_form = json.boolean("use_parallel_residual", true) ? BlockForm::parallel : BlockForm::pre_norm;
  config.rotary_dim = partial_rotary_dim(json, config, "rotary_pct", 0.25);
  config.rope_theta = json.number("rotary_emb_base", 10000);
  read_rope(json, config);
}

}  // namespace

Family gpt_neox_family() {
  return {.model_type = "gpt_neox",
          .read_config = read_gpt_neox,
          .prefix = "gpt_neox.",
          .embedding = "embed_in",
          .blocks = "layers",
          .final_norm = "final_layer_norm",
          .head = "embed_out",
          .block = {.norm1 = "input_layernorm",
                    .norm2 = "post_attention_layernorm",
                    .qkv = "attention.query_key_value",
                    .out = "attention.dense",
                    .up = "mlp.dense_h_to_4h",
                    .down = "mlp.dense_4h_to_h"},
          .lora_targets = {"query_key_value"},
          .ia3_targets = {"query_key_value", "dense_4h_to_h"},
          .ia3_feedforward = {"dense_4h_to_h"},
          .ignored_suffixes = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"}};
}

}  // namespace fsllm::detail
