// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fmt/core.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace fsllm {

/// "1 rank", "2 ranks": of nouns whose plural ends in s.
inline std::string counted(int64_t number, std::string_view noun) {
  return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

}  // namespace fsllm
