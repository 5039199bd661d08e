// SPDX-License-Identifier: Apache-2.0
// CSV: an Error that names the source, or records of at least one field whose lines ascend.
#include <cstdlib>

#include "fsllm/core/error.hpp"
#include "fsllm/eval/csv.hpp"

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  try {
    int64_t line = 0;
    for (auto const& record : fsllm::parse_csv({reinterpret_cast<char const*>(data), size}, "in.csv")) {
      if (record.fields.empty() || record.line <= line) std::abort();
      line = record.line;
    }
  } catch (fsllm::Error const& error) {
    if (!std::string(error.what()).starts_with("in.csv:")) std::abort();
  }
  return 0;
}
