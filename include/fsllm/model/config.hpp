// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fsllm {

enum class NormKind { rms, layer };
enum class PositionKind { rope, learned };
enum class ActivationKind { silu, gelu, gelu_tanh, relu };

/// One decoder described by data. A family (llama, mistral, qwen2, gpt2) fills it from its config.json.
struct ModelConfig {
  std::string family;        ///< HF model_type
  std::string architecture;  ///< "LlamaForCausalLM"
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_layers = 0;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t max_positions = 0;
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-5;
  PositionKind position = PositionKind::rope;
  double rope_theta = 10000;
  ActivationKind activation = ActivationKind::silu;
  bool gated_mlp = true;
  bool fused_qkv = false;  ///< one projection of [q; k; v] (GPT-2 c_attn)
  bool conv1d = false;     ///< projections stored [in, out] (GPT-2 Conv1D)
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  bool tied_embeddings = false;
  int64_t sliding_window = 0;  ///< 0: full attention
  std::optional<int32_t> bos_id, eos_id, pad_id;
  // LLaMA 3.1 rope scaling ("rope_type": "llama3"); factor 1 means none.
  double rope_factor = 1, rope_low_freq_factor = 1, rope_high_freq_factor = 4;
  int64_t rope_original_positions = 0;
};

/// Reads config.json of an HF folder; unknown model types and impossible numbers are Errors.
ModelConfig load_model_config(std::filesystem::path const& model_dir);

/// Model types of the family table, for messages and --describe.
std::vector<std::string> known_model_families();

}  // namespace fsllm
