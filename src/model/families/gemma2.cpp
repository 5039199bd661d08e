// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include <cmath>

#include "family.hpp"

namespace fsllm::detail {
namespace {

/// A cap above 0; null means none, and an absent key the published models' cap.
double read_cap(ConfigJson const& json, std::string const& key, double fallback) {
  if (json.is_null(key)) return 0;
  double const cap = json.number(key, fallback);
  if (cap <= 0)
    json.refuse(fmt::format("'{}' = {} (must be above 0, or null for no cap). Correct it.", key, cap));
  return cap;
}

/// Gemma Team 2024, section 2: norms before and behind attention and MLP, capped scores and logits, every
/// other layer seeing only the last tokens.
void read_gemma2(ConfigJson const& json, ModelConfig& config) {
  read_gemma_like(json, config);
  config.block_form = BlockForm::sandwich_norm;
  config.activation = parse_activation(json, "hidden_activation", "gelu_pytorch_tanh");
  config.attention_softcap = read_cap(json, "attn_logit_softcapping", 50);
  config.logit_softcap = read_cap(json, "final_logit_softcapping", 30);
  double const scalar = json.number("query_pre_attn_scalar", 256);
  if (scalar <= 0)
    json.refuse(fmt::format("'query_pre_attn_scalar' = {} (must be above 0). Correct it.", scalar));
  config.attention_scale = 1 / std::sqrt(scalar);
  int64_t const window = json.size_or("sliding_window", 4096);
  read_layer_types(json, config, window, [](int64_t layer) { return layer % 2 == 0; });
}

}  // namespace

Family gemma2_family() {
  auto family = gemma_family();
  family.model_type = "gemma2";
  family.read_config = read_gemma2;
  family.block.norm1_after = "post_attention_layernorm";
  family.block.norm2 = "pre_feedforward_layernorm";
  family.block.norm2_after = "post_feedforward_layernorm";
  return family;
}

}  // namespace fsllm::detail
