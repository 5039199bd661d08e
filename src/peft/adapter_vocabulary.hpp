// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <set>
#include <string>

#include "fsllm/peft/peft.hpp"

namespace fsllm::detail {

/// Adds CausalLM::vocabulary() under the names that PEFT's save_embedding_layers gives it; what stands there
/// already (a trained bias) stays.
void add_vocabulary(TensorMap& file_tensors, TensorMap const& vocabulary);

/// Puts the embeddings of an adapter's folder, if it has any, into the model, in the types that the model's
/// own have. Parts that are missing or do not fit each other or the model are Errors. Returns their names in
/// the file.
std::set<std::string> load_vocabulary(std::filesystem::path const& dir, CausalLM& model);

}  // namespace fsllm::detail
