// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "weights.hpp"

namespace fsllm::detail {

/// `source` with the matrices that bitsandbytes has packed (int8 of Linear8bitLt; NF4 of Linear4bit with
/// double quantisation, blocks of 64 and 256) under their own names, in fp32 and by packed(). Packed matrices
/// of other kinds stay as they are; damaged ones are an Error when they are asked for. Unchanged where
/// nothing is packed.
std::unique_ptr<WeightSource> with_bitsandbytes(std::unique_ptr<WeightSource> source);

}  // namespace fsllm::detail
