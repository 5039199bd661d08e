// SPDX-License-Identifier: Apache-2.0
#include "dtype.hpp"

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

struct NamedType {
  char const* name;
  at::ScalarType type;
};

constexpr NamedType kTypes[] = {
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U64", at::kUInt64},
    {"U32", at::kUInt32},
    {"U16", at::kUInt16},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
};

}  // namespace

std::optional<at::ScalarType> dtype_from_name(std::string_view name) {
  for (auto const& known : kTypes)
    if (name == known.name) return known.type;
  return {};
}

std::string dtype_name(at::ScalarType type, std::string const& tensor) {
  for (auto const& known : kTypes)
    if (type == known.type) return known.name;
  fail(fmt::format("tensor {} has element type {} (files have no name for it). Convert it before saving.",
                   tensor, c10::toString(type)));
}

std::optional<int64_t> checked_bytes(std::vector<int64_t> const& shape, at::ScalarType type) {
  auto bytes = static_cast<int64_t>(c10::elementSize(type));
  for (int64_t const size : shape)
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) return {};
  return bytes;
}

}  // namespace fsllm
