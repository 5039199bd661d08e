// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm::jinja {

/// Python's str methods on valid UTF-8: positions and lengths count code points.
int64_t count_characters(std::string_view text);
std::vector<std::string_view> characters(std::string_view text);

/// Where `part` begins at or behind byte `from`, in linear time; npos: nowhere.
size_t find_text(std::string_view text, std::string_view part, size_t from = 0);

enum class Side { left, right, both };
/// str.strip: white space, or any of the characters of `set`.
std::string_view strip(std::string_view text, Side side, std::string_view const* set = nullptr);
/// str.split: at white space where `separator` is null; at most `most` cuts where that is not negative.
std::vector<std::string> split(std::string_view text, std::string_view const* separator, int64_t most);
std::vector<std::string> rsplit(std::string_view text, std::string_view separator, int64_t most);
std::vector<std::string> split_lines(std::string_view text);
/// At most `most` replacements where that is not negative.
std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t most);
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);

}  // namespace fsllm::jinja
