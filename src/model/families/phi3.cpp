// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"

namespace fsllm::detail {
namespace {

/// LLaMA with q, k, v in one projection and gate and up in another (Abdin et al. 2024). PEFT has no default
/// targets for it.
void read_phi3(ConfigJson const& json, ModelConfig& config) {
  read_llama_like(json, config);
  config.residual_dropout = json.probability("resid_pdrop", 0);
  config.norm_eps = json.number("rms_norm_eps", 1e-5);
  config.max_positions = json.size_or("max_position_embeddings", 4096);
  config.qkv = QkvKind::concatenated;
  config.fused_gate_up = true;
  config.rotary_dim = partial_rotary_dim(json, config, "partial_rotary_factor", 1);
  config.rope_original_positions = 4096;  // transformers' default, whatever stands below "rope_scaling"
  read_rope(json, config);
  read_window(json, config, 0);
}

}  // namespace

Family phi3_family() {
  auto family = llama_family();
  family.model_type = "phi3";
  family.read_config = read_phi3;
  family.block.qkv = "self_attn.qkv_proj";
  family.block.gate_up = "mlp.gate_up_proj";
  family.lora_targets = family.ia3_targets = family.ia3_feedforward = {};
  return family;
}

}  // namespace fsllm::detail
