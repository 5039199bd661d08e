// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>

namespace fsllm {

/// A pattern in Oniguruma's syntax (Ruby's, Unicode 16) as PCRE2 writes it: classes and properties that mean
/// something else there are spelt out, nested classes flattened. Constructs without a counterpart are Errors
/// that name them; `where` names file and construct.
std::string translate_oniguruma(std::string_view pattern, std::string const& where);

}  // namespace fsllm
