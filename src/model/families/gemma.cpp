// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "family.hpp"

namespace fsllm::detail {
namespace {

/// LLaMA with a GELU gate (Gemma Team 2024, "Gemma", section 2). "gelu" in published files means its tanh
/// form.
void read_gemma(ConfigJson const& json, ModelConfig& config) {
  read_gemma_like(json, config);
  auto const activation = parse_activation(json, "hidden_act", "gelu_pytorch_tanh");
  config.activation = activation == ActivationKind::gelu ? ActivationKind::gelu_tanh : activation;
}

}  // namespace

void read_gemma_like(ConfigJson const& json, ModelConfig& config) {
  config.head_dim = 256;
  read_llama_like(json, config);
  read_rope(json, config);
  config.norm = NormKind::rms_one_plus;
  config.embedding_scale = std::sqrt(static_cast<double>(config.hidden_size));
  config.tied_embeddings = json.boolean("tie_word_embeddings", true);
  config.qkv_bias = config.out_bias = json.boolean("attention_bias", false);
}

Family gemma_family() {
  auto family = llama_family();
  family.model_type = "gemma";
  family.read_config = read_gemma;
  family.ia3_targets = {"q_proj", "v_proj", "down_proj"};
  return family;
}

}  // namespace fsllm::detail
