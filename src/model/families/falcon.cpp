// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include "family.hpp"

namespace fsllm::detail {
namespace {

/// Which keys and values there are and how they lie beside q: one for all heads (7B), one for a group of
/// heads (11B), or one each.
void read_heads(ConfigJson const& json, ModelConfig& config, bool grouped) {
  bool const shared = !grouped && json.boolean("multi_query", true);
  config.qkv = shared ? QkvKind::concatenated : QkvKind::per_head;
  if (shared) config.num_kv_heads = 1;
  if (grouped) config.num_kv_heads = json.size_or("num_kv_heads", config.num_heads);
}

/// Attention and MLP side by side behind one norm, turned positions, the head shares the embedding
/// (Almazrouei et al. 2023, section 4).
void read_falcon(ConfigJson const& json, ModelConfig& config) {
  config.hidden_size = json.size(json.has("n_embed") ? "n_embed" : "hidden_size");
  config.num_layers = json.size("num_hidden_layers", kMostLayers);
  config.num_heads = json.size("num_attention_heads");
  config.intermediate_size = json.size_or("ffn_hidden_size", 4 * config.hidden_size);
  config.max_positions = json.size_or("max_position_embeddings", 2048);
  read_gpt_like(json, config);
  config.activation = parse_activation(json, "activation", "gelu");
  config.qkv_bias = config.out_bias = config.mlp_bias = json.boolean("bias", false);
  bool const grouped = json.boolean("new_decoder_architecture", false);
  bool const parallel = grouped || json.boolean("parallel_attn", true);
  config.block_form = parallel ? BlockForm::parallel_one_norm : BlockForm::pre_norm;
  if (json.probability("hidden_dropout", 0) > 0 || config.attention_dropout > 0)
    json.refuse(
        "'hidden_dropout' or 'attention_dropout' above 0 (not available in this version for Falcon). Set "
        "them to 0.");
  read_heads(json, config, grouped);
  read_rope(json, config);
  int64_t const norms = json.size_or("num_ln_in_parallel_attn", grouped ? 2 : 1);
  if (parallel && norms != 1)
    json.refuse(
        fmt::format("{} norms before attention and MLP ('num_ln_in_parallel_attn'; Falcon 40B and 180B "
                    "are not available in this version). Use another model.",
                    norms));
  if (json.boolean("alibi", false))
    json.refuse("'alibi' = true (Falcon RW is not available in this version). Use another model.");
}

}  // namespace

Family falcon_family() {
  auto family = bloom_family();
  family.model_type = "falcon";
  family.read_config = read_falcon;
  family.embedding_norm = "";
  family.ia3_targets = {"query_key_value", "dense_4h_to_h"};
  family.ia3_feedforward = {"dense_4h_to_h"};
  return family;
}

}  // namespace fsllm::detail
