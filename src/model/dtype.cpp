// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/dtype.hpp"

#include <array>
#include <utility>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {
namespace {

constexpr std::array<std::pair<char const*, at::ScalarType>, 4> kTypes{{{"fp64", at::ScalarType::Double},
                                                                        {"fp32", at::ScalarType::Float},
                                                                        {"bf16", at::ScalarType::BFloat16},
                                                                        {"fp16", at::ScalarType::Half}}};

}  // namespace

at::ScalarType parse_dtype(std::string const& name, std::string const& key) {
  for (auto const& [known, type] : kTypes)
    if (name == known) return type;
  fail(fmt::format("{} = '{}' (not a type this program computes in).{}", key, name,
                   did_you_mean(name, {"fp32", "bf16", "fp16"})));
}

std::string dtype_name(at::ScalarType type) {
  for (auto const& [name, known] : kTypes)
    if (type == known) return name;
  return c10::toString(type);
}

}  // namespace fsllm
