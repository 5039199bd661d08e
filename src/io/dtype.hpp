// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm {

/// Element types under the names of the safetensors format, which checkpoints use too.
std::optional<at::ScalarType> dtype_from_name(std::string_view name);
/// An Error names `tensor` where files have no name for this type.
std::string dtype_name(at::ScalarType type, std::string const& tensor);
/// Bytes of a tensor of this shape; empty where the number overflows or a dimension is negative.
std::optional<int64_t> checked_bytes(std::vector<int64_t> const& shape, at::ScalarType type);

}  // namespace fsllm
