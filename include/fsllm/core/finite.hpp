// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// No value is NaN or infinite. Reads the tensor once and copies nothing.
bool is_finite(at::Tensor const& tensor);

/// The name of the first tensor that is not finite; "" where all are.
std::string first_not_finite(TensorMap const& tensors);

}  // namespace fsllm
