// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"

namespace fsllm::detail {
namespace {

/// Attention and MLP side by side behind one norm, neighbouring dimensions of the first `rotary_dim` turned
/// together (Wang & Komatsuzaki 2021), biases in the MLP and the head only.
void read_gptj(ConfigJson const& json, ModelConfig& config) {
  config.hidden_size = json.size("n_embd");
  config.num_layers = json.size("n_layer", kMostLayers);
  config.num_heads = json.size("n_head");
  config.intermediate_size = json.size_or("n_inner", 4 * config.hidden_size);
  config.max_positions = json.size_or("n_positions", 2048);
  read_gpt_like(json, config);
  read_gpt_dropouts(json, config, 0);
  config.block_form = BlockForm::parallel_one_norm;
  config.position = PositionKind::rope;
  config.rotary_dim = json.size_or("rotary_dim", 64);
  config.rotary_neighbours = true;
  config.qkv_bias = config.out_bias = false;
  config.head_bias = true;
  config.tied_embeddings = json.boolean("tie_word_embeddings", false);
}

}  // namespace

Family gptj_family() {
  auto family = gpt2_family();
  family.model_type = "gptj";
  family.read_config = read_gptj;
  family.positions = "";
  family.block = {.norm1 = "ln_1",
                  .q = "attn.q_proj",
                  .k = "attn.k_proj",
                  .v = "attn.v_proj",
                  .out = "attn.out_proj",
                  .up = "mlp.fc_in",
                  .down = "mlp.fc_out"};
  family.lora_targets = {"q_proj", "v_proj"};
  family.ia3_targets = {"q_proj", "v_proj", "fc_out"};
  family.ia3_feedforward = {"fc_out"};
  return family;
}

}  // namespace fsllm::detail
