// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// What GGUF files (llama.cpp) cannot say of a model is an Error that names it: families other than llama,
/// mistral and qwen2, sliding windows, and position scaling other than linear and that of Llama 3.1.
void check_for_gguf(ModelConfig const& config);

/// Writes the model as llama.cpp reads it. `dtype` is fp32, fp16 or q8_0; vectors stay F32, and matrices
/// whose rows are no whole blocks of Q8_0 become F16. `metadata` (name, licence, tokenizer) stands behind
/// what says the model's sizes.
void save_gguf(std::filesystem::path const& file, CausalLM& model, std::string const& dtype,
               nlohmann::ordered_json const& metadata);

/// LoRA of one matrix: module → A [r, in], B [out, r].
struct LoraFactorsOf {
  std::string module;
  at::Tensor a, b;
};

/// Writes a LoRA for llama.cpp's --lora, which adds alpha / r B A. Modules that such a file has no place for
/// are Errors. `dtype` is fp32 or fp16.
void save_gguf_lora(std::filesystem::path const& file, ModelConfig const& config,
                    std::vector<LoraFactorsOf> const& factors, double alpha, std::string const& dtype,
                    nlohmann::ordered_json const& metadata);

/// Reads such a file back, its scale within B.
std::vector<LoraFactorsOf> read_gguf_lora(std::filesystem::path const& file, ModelConfig const& config);

}  // namespace fsllm
