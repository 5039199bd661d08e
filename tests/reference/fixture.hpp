// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm::test {

/// A tiny random model made by make_model_goldens.py, and what transformers + peft compute with it in
/// float64.
struct Reference {
  std::filesystem::path dir;
  std::vector<std::vector<int64_t>> rows;     ///< token ids
  std::vector<std::vector<uint8_t>> targets;  ///< 1 where a token is scored
  std::vector<std::vector<int32_t>> greedy;   ///< 12 tokens after each row
  std::vector<double> losses_sgd, losses_adamw, losses_full_sgd;
  int64_t parameters = 0;
  TensorMap golden;  ///< "row0.logits", "row0.lora_logits", "grad.base_model…"
};

/// Every folder of tests/reference that holds a golden.json, in order of name.
std::vector<std::string> reference_names();
/// Those whose config.json has this model type.
std::vector<std::string> references_of(std::string const& family);
Reference load_reference(std::string const& name);

/// All rows end to end.
RaggedInput ragged(std::vector<std::vector<int64_t>> const& rows);
/// Logits [N, vocab] of all rows in one pass, without gradients.
at::Tensor all_logits(CausalLM& model, std::vector<std::vector<int64_t>> const& rows);
/// Mean cross-entropy over all targets of all rows, differentiable.
at::Tensor mean_loss(CausalLM& model, Reference const& reference, PassOptions const& options = {});
/// A pass of `rows` rows that trains under this seed, from row `first_row` of the step on.
PassOptions training(uint64_t seed, int64_t rows, int64_t first_row = 0);

/// Copies a fixture's files (or another model's) into a folder that a test may spoil.
void copy_model(std::filesystem::path const& from, std::filesystem::path const& to);

}  // namespace fsllm::test
