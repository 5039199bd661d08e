// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>

#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// A map as bytes, for receivers of this program that do not know its layout.
std::string to_bytes(TensorMap const& map);
/// What to_bytes() was given, in host memory.
TensorMap from_bytes(std::string_view bytes);

}  // namespace fsllm
