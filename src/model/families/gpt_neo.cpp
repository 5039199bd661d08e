// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include "family.hpp"

namespace fsllm::detail {
namespace {

/// "attention_types": [[["global", "local"], 12]] says that the two alternate, twelve times.
void read_windows(ConfigJson const& json, ModelConfig& config) {
  int64_t const window = json.size_or("window_size", 256);
  auto const types = json.repeated_texts("attention_types", kMostLayers);
  for (auto const& type : types) {
    if (type != "global" && type != "local")
      json.refuse(fmt::format("'attention_types' holds '{}' (global or local is needed). Correct it.", type));
    config.layer_windows.push_back(type == "local" ? window : 0);
  }
  if (static_cast<int64_t>(types.size()) != config.num_layers)
    json.refuse(fmt::format("'attention_types' describes {} layers ('num_layers' = {}). Correct one of them.",
                            types.size(), config.num_layers));
}

/// GPT-2's block with separate projections, scores that are not scaled, and every other layer seeing only the
/// last tokens (Black et al. 2021).
void read_gpt_neo(ConfigJson const& json, ModelConfig& config) {
  config.hidden_size = json.size("hidden_size");
  config.num_layers = json.size("num_layers", kMostLayers);
  config.num_heads = json.size("num_heads");
  config.intermediate_size = json.size_or("intermediate_size", 4 * config.hidden_size);
  config.max_positions = json.size_or("max_position_embeddings", 2048);
  read_gpt_like(json, config);
  config.embedding_dropout = json.probability("embed_dropout", 0);
  config.residual_dropout = json.probability("resid_dropout", 0);
  config.attention_scale = 1;
  config.qkv_bias = false;
  read_windows(json, config);
}

}  // namespace

Family gpt_neo_family() {
  auto family = gpt2_family();
  family.model_type = "gpt_neo";
  family.read_config = read_gpt_neo;
  family.block.qkv = "";
  family.block.q = "attn.attention.q_proj";
  family.block.k = "attn.attention.k_proj";
  family.block.v = "attn.attention.v_proj";
  family.block.out = "attn.attention.out_proj";
  family.lora_targets = {"q_proj", "v_proj"};
  family.ia3_targets = {"q_proj", "v_proj", "c_proj"};
  family.ia3_feedforward = {"c_proj"};
  family.ignored_suffixes = {".attn.attention.bias", ".attn.attention.masked_bias"};
  return family;
}

}  // namespace fsllm::detail
