// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace fsllm {

/// Is one of these words a part of the name?
bool has_any(std::string const& name, std::vector<std::string> const& words);

/// The text with A to Z as a to z.
std::string lower_case(std::string_view text);

/// The known name nearest to `name` (edit distance, swaps included, at most 3 and half its length), or "".
std::string nearest_name(std::string_view name, std::vector<std::string> const& known);

/// " Did you mean 'x'?" where there is a near name, else " Known: a, b, c." (or "" with nothing known).
std::string did_you_mean(std::string_view name, std::vector<std::string> const& known);

/// The same for the path of a key: a near one, or the only key of that name in another section or below this
/// one.
std::string did_you_mean_key(std::string const& path, std::vector<std::string> const& known);

}  // namespace fsllm
