// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include "family.hpp"

namespace fsllm::detail {
namespace {

void read_gpt2(ConfigJson const& json, ModelConfig& config) {
  config.hidden_size = json.size("n_embd");
  config.num_layers = json.size("n_layer", kMostLayers);
  config.num_heads = json.size("n_head");
  config.intermediate_size = json.size_or("n_inner", 4 * config.hidden_size);
  config.max_positions = json.size_or("n_positions", json.size_or("n_ctx", 1024));
  read_gpt_like(json, config);
  read_gpt_dropouts(json, config, 0.1);
  config.qkv = QkvKind::concatenated;
  config.conv1d = true;
  if (!json.boolean("scale_attn_weights", true) || json.boolean("scale_attn_by_inverse_layer_idx", false))
    json.refuse(
        "attention scaled another way than 1/sqrt(head size) (scale_attn_weights, "
        "scale_attn_by_inverse_layer_idx; not available in this version). Use another model.");
}

}  // namespace

int64_t even_head_dim(ConfigJson const& json, ModelConfig const& config) {
  if (config.hidden_size % config.num_heads != 0)
    json.refuse(fmt::format("hidden size {} (not a multiple of {} heads). Correct one of them.",
                            config.hidden_size, config.num_heads));
  return config.hidden_size / config.num_heads;
}

void read_gpt_like(ConfigJson const& json, ModelConfig& config) {
  config.vocab_size = json.size("vocab_size");
  config.num_kv_heads = config.num_heads;
  config.head_dim = even_head_dim(json, config);
  config.norm = NormKind::layer;
  config.norm_eps = json.number("layer_norm_epsilon", 1e-5);
  config.position = PositionKind::learned;
  config.activation = parse_activation(json, "activation_function", "gelu_new");
  config.gated_mlp = false;
  config.qkv_bias = config.out_bias = config.mlp_bias = true;
  config.tied_embeddings = json.boolean("tie_word_embeddings", true);
}

void read_gpt_dropouts(ConfigJson const& json, ModelConfig& config, double fallback) {
  config.embedding_dropout = json.probability("embd_pdrop", fallback);
  config.residual_dropout = json.probability("resid_pdrop", fallback);
  config.attention_dropout = json.probability("attn_pdrop", fallback);
}

Family gpt2_family() {
  return {.model_type = "gpt2",
          .read_config = read_gpt2,
          .prefix = "transformer.",
          .embedding = "wte",
          .positions = "wpe",
          .blocks = "h",
          .final_norm = "ln_f",
          .head = "lm_head",
          .block = {.norm1 = "ln_1",
                    .norm2 = "ln_2",
                    .qkv = "attn.c_attn",
                    .out = "attn.c_proj",
                    .up = "mlp.c_fc",
                    .down = "mlp.c_proj"},
          .lora_targets = {"c_attn"},
          .ia3_targets = {"c_attn", "mlp.c_proj"},
          .ia3_feedforward = {"mlp.c_proj"},
          .ignored_suffixes = {".attn.bias", ".attn.masked_bias"}};
}

}  // namespace fsllm::detail
