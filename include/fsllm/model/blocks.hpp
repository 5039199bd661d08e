// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// The block that a tensor or module belongs to: the first part of its name that is a number
/// ("model.layers.3.mlp.up_proj.weight": 3); -1 for embeddings, the last norm and the head.
int64_t block_of(std::string const& name);
/// The name with another number for its block.
std::string with_block(std::string const& name, int64_t block);

/// What a tensor of a copy becomes: its name there, its values → values of the same shape and type.
using TensorChange = std::function<at::Tensor(std::string const& name, at::Tensor const& values)>;

/// Copies a model (a Hugging Face folder or a GGUF file) to the folder `out`, one tensor at a time: the
/// blocks `blocks`, numbered from 0 in this order, and all that belongs to no block. Tensors keep their type
/// and bytes, but for `replaced`, which stand under the names of the copy; embeddings of more rows make the
/// vocabulary larger. `change` sees all others. Files of the tokenizer come along, but for those that a GGUF
/// file has inside.
void copy_blocks(std::filesystem::path const& source, std::vector<int64_t> const& blocks,
                 TensorMap const& replaced, std::filesystem::path const& out,
                 TensorChange const& change = {});

}  // namespace fsllm
