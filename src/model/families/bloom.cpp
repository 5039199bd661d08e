// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"

namespace fsllm::detail {
namespace {

/// No position table but a penalty on distance (ALiBi), and a norm behind the embedding (Le Scao et al. 2022,
/// section 3). Published files spell some keys in an older way.
void read_bloom(ConfigJson const& json, ModelConfig& config) {
  config.hidden_size = json.size(json.has("n_embed") ? "n_embed" : "hidden_size");
  config.num_layers = json.size(json.has("num_hidden_layers") ? "num_hidden_layers" : "n_layer", kMostLayers);
  config.num_heads = json.size(json.has("num_attention_heads") ? "num_attention_heads" : "n_head");
  config.intermediate_size = 4 * config.hidden_size;
  config.max_positions = json.size_or("seq_length", 2048);
  read_gpt_like(json, config);
  config.residual_dropout = json.probability("hidden_dropout", 0);
  config.position = PositionKind::alibi;
  config.activation = ActivationKind::gelu_tanh;
  config.qkv = QkvKind::per_head;
  config.embedding_norm = true;
  if (json.boolean("apply_residual_connection_post_layernorm", false))
    json.refuse(
        "'apply_residual_connection_post_layernorm' = true (not available in this version). Use another "
        "model.");
}

}  // namespace

Family bloom_family() {
  return {.model_type = "bloom",
          .read_config = read_bloom,
          .prefix = "transformer.",
          .embedding = "word_embeddings",
          .blocks = "h",
          .final_norm = "ln_f",
          .embedding_norm = "word_embeddings_layernorm",
          .head = "lm_head",
          .block = {.norm1 = "input_layernorm",
                    .norm2 = "post_attention_layernorm",
                    .qkv = "self_attention.query_key_value",
                    .out = "self_attention.dense",
                    .up = "mlp.dense_h_to_4h",
                    .down = "mlp.dense_4h_to_h"},
          .lora_targets = {"query_key_value"},
          .ia3_targets = {"query_key_value", "mlp.dense_4h_to_h"},
          .ia3_feedforward = {"mlp.dense_4h_to_h"}};
}

}  // namespace fsllm::detail
