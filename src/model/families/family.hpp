// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "../config_json.hpp"
#include "fsllm/model/config.hpp"

namespace fsllm::detail {

/// Module names inside one block ("self_attn.q_proj"); empty where the family has no such module.
struct BlockNames {
  std::string norm1, norm2;
  std::string q, k, v, qkv, out;
  std::string gate, up, down;
};

/// A row of the family table: how config.json is read and what the tensors are called in Hugging Face files.
struct Family {
  std::string model_type;
  void (*read_config)(ConfigJson const& json, ModelConfig& config);
  std::string prefix;  ///< "model."; files saved without the head's class may lack it
  std::string embedding, positions, blocks, final_norm;  ///< below the prefix
  std::string head;                                      ///< "lm_head", without the prefix
  BlockNames block;
  std::vector<std::string> lora_targets;  ///< PEFT's defaults
  std::vector<std::string>
      ignored_suffixes;  ///< tensors of old files that are no weights (".attn.bias" masks)
};

constexpr int64_t kMostLayers = 10000, kLargestHead = 65536;

Family llama_family();
Family mistral_family();
Family qwen2_family();
Family gpt2_family();

/// The table, in the order of messages.
std::vector<Family> const& family_table();
/// The row of a model type; an unknown one is an Error that names `source`.
Family const& find_family(std::string const& model_type, std::string const& source);

/// What all LLaMA-like config.json files share: sizes, RMS norm, activation, RoPE.
void read_llama_like(ConfigJson const& json, ModelConfig& config);
ActivationKind parse_activation(ConfigJson const& json, std::string const& key, std::string const& fallback);

}  // namespace fsllm::detail
