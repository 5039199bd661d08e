// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

namespace fsllm {

/// A text as a field of a CSV file: in quotes where it holds a comma, quotes or an end of line (RFC 4180).
std::string csv_field(std::string const& text);

}  // namespace fsllm
