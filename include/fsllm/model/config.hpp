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
enum class RopeScaling { none, linear, llama3 };

/// One decoder described by data. A family (llama, mistral, qwen2, gpt2) fills it from its config.json.
struct ModelConfig {
  std::string family;        ///< HF model_type
  std::string architecture;  ///< "LlamaForCausalLM"
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_layers = 0;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t max_positions = 0;  ///< most tokens of a row, beside virtual ones
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-5;
  PositionKind position = PositionKind::rope;
  ActivationKind activation = ActivationKind::silu;
  bool gated_mlp = true;
  bool fused_qkv = false;  ///< one projection of [q; k; v] (GPT-2 c_attn)
  bool conv1d = false;     ///< projections stored [in, out] (GPT-2 Conv1D)
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  bool tied_embeddings = false;
  /// One entry a layer: how many last tokens it attends to, 0 for all; empty: all layers attend to all.
  std::vector<int64_t> layer_windows;
  std::optional<int32_t> bos_id, eos_id, pad_id;
  std::vector<int32_t> eos_ids;  ///< all of them; eos_id is the first

  double rope_theta = 10000;
  RopeScaling rope_scaling = RopeScaling::none;
  double rope_factor = 1, rope_low_freq_factor = 1, rope_high_freq_factor = 4;
  int64_t rope_original_positions = 0;

  /// Modules that LoRA adapts unless told otherwise (PEFT's table for this model type).
  std::vector<std::string> lora_targets;
  int64_t window_of(size_t layer) const { return layer_windows.empty() ? 0 : layer_windows[layer]; }
};

/// Reads config.json (and the EOS ids of generation_config.json) of an HF folder, or the metadata of a GGUF
/// file; unknown model types and impossible numbers are Errors.
ModelConfig load_model_config(std::filesystem::path const& model);

/// Model types of the family table, for messages and --describe.
std::vector<std::string> known_model_families();

}  // namespace fsllm
