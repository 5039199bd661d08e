// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fsllm {

enum class NormKind { rms, rms_one_plus, layer };  ///< rms_one_plus: stored weights are added to 1 (Gemma)
enum class PositionKind { rope, learned, alibi };
enum class ActivationKind { silu, gelu, gelu_tanh, relu };
enum class RopeScaling { none, linear, llama3, longrope, yarn };

/// How q, k and v are stored: three projections, one of [q; k; v], or one of [its q's; k; v] of each key head
/// in turn.
enum class QkvKind { separate, concatenated, per_head };

/// Where the norms and residual connections of a block stand; A is attention, M the MLP, n and m norms.
enum class BlockForm {
  pre_norm,           ///< x + A(n x), then x + M(m x)
  post_norm,          ///< n(x + A x), then m(x + M x)
  sandwich_norm,      ///< x + n'(A(n x)), then x + m'(M(m x))
  parallel,           ///< x + A(n x) + M(m x)
  parallel_one_norm,  ///< x + A(n x) + M(n x)
};

/// One decoder described by data. A family (a row of families/table.cpp) fills it from its config.json.
struct ModelConfig {
  std::string family;        ///< HF model_type
  std::string architecture;  ///< "LlamaForCausalLM"
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_layers = 0;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t max_positions = 0;  ///< most tokens of a row, beside virtual ones
  BlockForm block_form = BlockForm::pre_norm;
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-5;
  bool final_norm = true;
  ActivationKind activation = ActivationKind::silu;
  bool gated_mlp = true;
  bool fused_gate_up = false;  ///< one projection of [gate; up]
  QkvKind qkv = QkvKind::separate;
  bool qk_norm = false;  ///< q and k of each head are normed before they are turned
  bool conv1d = false;   ///< projections stored [in, out] (GPT-2 Conv1D)
  bool qkv_bias = false, out_bias = false, mlp_bias = false, head_bias = false;

  int64_t embedding_size = 0;  ///< of a token's embedding; projected where it is not hidden_size
  double embedding_scale = 1;  ///< embeddings are multiplied by it
  bool embedding_norm = false;
  bool tied_embeddings = false;
  /// Probabilities of dropout in training: of embeddings, of what attention and MLP add to the residual, and
  /// of attention weights.
  double embedding_dropout = 0, residual_dropout = 0, attention_dropout = 0;
  double attention_scale = 0;                       ///< of q·k; 0: 1 / sqrt(head_dim)
  double attention_softcap = 0, logit_softcap = 0;  ///< x becomes cap·tanh(x / cap); 0: no cap
  /// One entry a layer: how many last tokens it attends to, 0 for all; empty: all layers attend to all.
  std::vector<int64_t> layer_windows;
  std::optional<int32_t> bos_id, eos_id, pad_id;
  std::vector<int32_t> eos_ids;  ///< all of them; eos_id is the first

  PositionKind position = PositionKind::rope;
  int64_t position_offset = 0;     ///< row of the position table that the first token gets
  int64_t rotary_dim = 0;          ///< first dimensions of a head that are turned
  bool rotary_neighbours = false;  ///< pairs are (2i, 2i + 1), not (i, i + rotary_dim/2)
  double rope_theta = 10000;
  RopeScaling rope_scaling = RopeScaling::none;
  double rope_factor = 1, rope_low_freq_factor = 1, rope_high_freq_factor = 4;
  int64_t rope_original_positions = 0;
  /// LongRoPE: divisors of the frequencies in rows of up to rope_original_positions and in longer ones.
  std::vector<double> rope_short_factors, rope_long_factors;
  double rope_ramp_begin = 0, rope_ramp_end = 0;  ///< YaRN: frequencies between which the stretch sets in
  double rope_attention_factor = 1;               ///< cos and sin are multiplied by it

  /// Modules that LoRA adapts unless told otherwise (PEFT's table for this model type).
  std::vector<std::string> lora_targets;
  /// The same for IA³, and those of them whose input it scales, not the output.
  std::vector<std::string> ia3_targets, ia3_feedforward;
  std::string embedding, head;  ///< transformers' modules: "model.embed_tokens", "lm_head"
  /// The numbers of the blocks in the names of modules, and so of adapters, where they are those of a larger
  /// model (copy_blocks); empty: from 0.
  std::vector<int64_t> block_numbers;
  int64_t window_of(size_t layer) const { return layer_windows.empty() ? 0 : layer_windows[layer]; }
  /// Whether the first `past` tokens of a row are turned otherwise once it has `length` (LongRoPE).
  bool rope_changes(int64_t past, int64_t length) const {
    return rope_scaling == RopeScaling::longrope && past > 0 && past <= rope_original_positions &&
           length > rope_original_positions;
  }
  bool operator==(ModelConfig const&) const = default;
};

/// Reads config.json (and the EOS ids of generation_config.json) of an HF folder, or the metadata of a GGUF
/// file; unknown model types and impossible numbers are Errors.
ModelConfig load_model_config(std::filesystem::path const& model);

/// Model types of the family table, for messages and --describe.
std::vector<std::string> known_model_families();

}  // namespace fsllm
