// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"

namespace fsllm::detail {
namespace {

/// GPT-2's block with separate projections (Zhang et al. 2022). The 350M model norms behind the residual
/// connections, has no last norm, and embeds tokens in fewer dimensions than it computes in.
void read_opt(ConfigJson const& json, ModelConfig& config) {
  config.hidden_size = json.size("hidden_size");
  config.num_layers = json.size("num_hidden_layers", kMostLayers);
  config.num_heads = json.size("num_attention_heads");
  config.intermediate_size = json.size("ffn_dim");
  config.max_positions = json.size_or("max_position_embeddings", 2048);
  read_gpt_like(json, config);
  config.residual_dropout = json.probability("dropout", 0.1);
  config.norm_eps = 1e-5;
  config.activation = parse_activation(json, "activation_function", "relu");
  config.position_offset = 2;  // rows 0 and 1 were kept for padding
  config.embedding_size = json.size_or("word_embed_proj_dim", config.hidden_size);
  bool const before = json.boolean("do_layer_norm_before", true);
  config.block_form = before ? BlockForm::pre_norm : BlockForm::post_norm;
  config.final_norm = before && !json.boolean("_remove_final_layer_norm", false);
  config.qkv_bias = config.out_bias = config.mlp_bias = json.boolean("enable_bias", true);
  if (!json.boolean("layer_norm_elementwise_affine", true))
    json.refuse(
        "'layer_norm_elementwise_affine' = false (norms without weights are not available in this version). "
        "Use another model.");
}

}  // namespace

Family opt_family() {
  return {.model_type = "opt",
          .read_config = read_opt,
          .prefix = "model.decoder.",
          .embedding = "embed_tokens",
          .positions = "embed_positions",
          .blocks = "layers",
          .final_norm = "final_layer_norm",
          .embedding_project = "project_in",
          .head_project = "project_out",
          .head = "lm_head",
          .block = {.norm1 = "self_attn_layer_norm",
                    .norm2 = "final_layer_norm",
                    .q = "self_attn.q_proj",
                    .k = "self_attn.k_proj",
                    .v = "self_attn.v_proj",
                    .out = "self_attn.out_proj",
                    .up = "fc1",
                    .down = "fc2"},
          .lora_targets = {"q_proj", "v_proj"},
          .ia3_targets = {"q_proj", "k_proj", "fc2"},
          .ia3_feedforward = {"fc2"}};
}

}  // namespace fsllm::detail
