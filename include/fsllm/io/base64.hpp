// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace fsllm {

/// The bytes that a base64 text (RFC 4648, section 4, padded) stands for; nothing for another text.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace fsllm
