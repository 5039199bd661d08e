// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace fsllm {

/// Deeper JSON is refused everywhere: what copies and writes values goes down into them by recursion.
inline constexpr size_t kDeepestJson = 200;

/// How deep brackets stand inside one another, those in texts aside.
size_t json_depth(std::string_view json);

/// The value of `key` in a valid JSON object as it is written there, without blanks outside of texts (numbers
/// keep all their digits); "" where the object has no such key.
std::string json_member(std::string_view object, std::string_view key);

}  // namespace fsllm
