// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/csv_field.hpp"

namespace fsllm {

std::string csv_field(std::string const& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string field = "\"";
  for (char const c : text) field += c == '"' ? std::string("\"\"") : std::string(1, c);
  return field + "\"";
}

}  // namespace fsllm
