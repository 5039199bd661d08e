// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <c10/core/ScalarType.h>

#include <string>

namespace fsllm {

/// fp64, fp32, bf16 or fp16; other names are an Error that names `key`.
at::ScalarType parse_dtype(std::string const& name, std::string const& key);
std::string dtype_name(at::ScalarType type);

}  // namespace fsllm
