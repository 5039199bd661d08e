// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "../config_json.hpp"
#include "fsllm/model/config.hpp"

namespace fsllm::detail {

/// Module names inside one block ("self_attn.q_proj"); empty where the family has no such module.
struct BlockNames {
  std::string norm1 = {}, norm2 = {};
  std::string norm1_after = {}, norm2_after = {};  ///< BlockForm::sandwich_norm
  std::string q = {}, k = {}, v = {}, qkv = {}, out = {};
  std::string q_norm = {}, k_norm = {};
  std::string gate = {}, up = {}, gate_up = {}, down = {};
};

/// A row of the family table: how config.json is read and what the tensors are called in Hugging Face files.
struct Family {
  std::string model_type;
  void (*read_config)(ConfigJson const& json, ModelConfig& config);
  std::string prefix;  ///< "model."; files saved without the head's class may lack it or its first part
  std::string embedding, positions = {}, blocks, final_norm;                   ///< below the prefix
  std::string embedding_norm = {}, embedding_project = {}, head_project = {};  ///< below the prefix
  std::string head;  ///< "lm_head", without the prefix
  BlockNames block;
  std::vector<std::string> lora_targets;  ///< PEFT's defaults
  /// The same for IA³, and those of them whose input is scaled.
  std::vector<std::string> ia3_targets, ia3_feedforward;
  std::vector<std::string> ignored_suffixes =
      {};  ///< tensors of old files that are no weights (".attn.bias" masks)
};

constexpr int64_t kMostLayers = 10000, kLargestHead = 65536;

Family llama_family();
Family mistral_family();
Family qwen2_family();
Family qwen3_family();
Family gpt2_family();
Family opt_family();
Family gpt_neox_family();
Family bloom_family();
Family gpt_neo_family();
Family gptj_family();
Family phi3_family();
Family gemma_family();
Family gemma2_family();
Family falcon_family();

/// The table, in the order of messages.
std::vector<Family> const& family_table();
/// The row of a model type; an unknown one is an Error that names `source`.
Family const& find_family(std::string const& model_type, std::string const& source);

/// What all LLaMA-like config.json files share: sizes, RMS norm, activation. head_dim is hidden / heads
/// unless set before or by "head_dim".
void read_llama_like(ConfigJson const& json, ModelConfig& config);
/// One "sliding_window" for all layers; null means none, and where it is absent it is `fallback`.
void read_window(ConfigJson const& json, ModelConfig& config, int64_t fallback);
/// Windows of `window` tokens for the layers that "layer_types" calls "sliding_attention", or, without that
/// key, those that `slides` says.
void read_layer_types(ConfigJson const& json, ModelConfig& config, int64_t window,
                      std::function<bool(int64_t layer)> const& slides);
/// The windows of Qwen2 and Qwen3.
void read_qwen_windows(ConfigJson const& json, ModelConfig& config);
/// The hidden size over the heads; what does not split evenly is refused.
int64_t even_head_dim(ConfigJson const& json, ModelConfig const& config);
/// What Gemma 1 and 2 share: heads of 256, weights of norms beside 1, scaled embeddings that are the head
/// too.
void read_gemma_like(ConfigJson const& json, ModelConfig& config);
/// What the LayerNorm families share beside their keys' names: biases everywhere, an MLP without gate, heads
/// that split the hidden size evenly. num_heads and hidden_size are read before.
void read_gpt_like(ConfigJson const& json, ModelConfig& config);
/// Dropouts under GPT-2's names, with its defaults or none.
void read_gpt_dropouts(ConfigJson const& json, ModelConfig& config, double fallback);
/// Theta and scaling of "rope_parameters" or "rope_scaling". rotary_dim is all of head_dim and rope_theta
/// 10000 unless set before.
void read_rope(ConfigJson const& json, ModelConfig& config);
/// The part of head_dim that is turned: "partial_rotary_factor" of "rope_parameters", else `key` beside it.
int64_t partial_rotary_dim(ConfigJson const& json, ModelConfig const& config, std::string const& key,
                           double fallback);
ActivationKind parse_activation(ConfigJson const& json, std::string const& key, std::string const& fallback);

}  // namespace fsllm::detail
