// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "../weights.hpp"

namespace fsllm::detail {

/// How a tensor's rows differ from Hugging Face's.
enum class RowOrder { same, transposed, interleaved };

/// One module of a model under both names, without ".weight" or ".bias".
struct GgufPart {
  std::string gguf;
  std::string hugging_face;  ///< "" where the family has no such module
  RowOrder order = RowOrder::same;
  int64_t heads = 1;
};

/// All modules that a GGUF file has names for. `interleaved`: has_interleaved_rows().
std::vector<GgufPart> gguf_parts(ModelConfig const& config, Family const& family, bool interleaved);

/// Rows in pairs (2i, 2i+1) of each head, as llama.cpp has them, to two halves (i, i + D/2), and back.
at::Tensor in_halves(at::Tensor const& rows, int64_t heads);
at::Tensor in_pairs(at::Tensor const& rows, int64_t heads);

}  // namespace fsllm::detail
