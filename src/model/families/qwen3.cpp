// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"

namespace fsllm::detail {
namespace {

/// LLaMA with RMS norms on q and k of each head (Yang et al. 2025, section 2) and heads of their own size.
void read_qwen3(ConfigJson const& json, ModelConfig& config) {
  config.head_dim = 128;
  read_llama_like(json, config);
  read_rope(json, config);
  config.qk_norm = true;
  config.qkv_bias = config.out_bias = json.boolean("attention_bias", false);
  read_qwen_windows(json, config);
}

}  // namespace

Family qwen3_family() {
  auto family = llama_family();
  family.model_type = "qwen3";
  family.read_config = read_qwen3;
  family.block.q_norm = "self_attn.q_norm";
  family.block.k_norm = "self_attn.k_norm";
  family.ia3_targets = {"q_proj", "v_proj", "down_proj"};
  return family;
}

}  // namespace fsllm::detail
