// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// An adapter to put into its model's weights.
struct MergeJob {
  std::filesystem::path model, adapter;
  std::string dtype = "fp32";          ///< to write
  std::string storage_dtype = "auto";  ///< train.storage_dtype of the run: weights as the adapter knew them
  std::filesystem::path cache_dir;     ///< LoadOptions::cache_dir
};

/// Beside an adapter that cannot hold all that was trained: what it stands for, module → [out, in] in fp32.
std::filesystem::path update_file(std::filesystem::path const& adapter);

/// The model with the adapter in its weights.
std::unique_ptr<CausalLM> merged_model(MergeJob const& job);

/// Writes it as a Hugging Face folder, with the adapter's fsllm.json.
void save_merged(MergeJob const& job, std::filesystem::path const& out);
/// The same of a model that is merged already.
void save_merged(MergeJob const& job, CausalLM& merged, std::filesystem::path const& out);

}  // namespace fsllm
