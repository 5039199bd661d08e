// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "cpu_kernels.hpp"

namespace fsllm::detail {

/// The floating type of `type` that loops read; none for others.
inline std::optional<StoredType> stored_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return StoredType::fp32;
    case at::kBFloat16:
      return StoredType::bf16;
    case at::kHalf:
      return StoredType::fp16;
    default:
      return {};
  }
}

/// The same values as fp32 numbers in a row, as loops read weights.
inline at::Tensor as_floats(at::Tensor const& values) {
  return values.to(at::kFloat).contiguous();
}

/// Are there loops of this processor for tensors like these, all of one type?
template <class... More>
bool have_kernels(at::Tensor const& first, More const&... more) {
  auto const type = first.scalar_type();
  return cpu_kernels() != nullptr && stored_type(type) && first.is_cpu() &&
         ((more.is_cpu() && more.scalar_type() == type) && ...);
}

}  // namespace fsllm::detail
