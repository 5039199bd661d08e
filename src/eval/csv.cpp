// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/csv.hpp"

#include "fsllm/core/error.hpp"
#include "fsllm/io/delimited.hpp"

namespace fsllm {

std::vector<CsvRecord> parse_csv(std::string_view text, std::string const& source) {
  std::vector<CsvRecord> found;
  DelimitedRecords records(
      source, ',',
      [&](std::vector<std::string>&& fields, RecordPlace const& place) {
        found.push_back({std::move(fields), place.line});
      },
      [](std::string const& why, RecordPlace const& place) {
        fail(fmt::format("{}: {}. Correct it.", place.text(), why));
      });
  records.feed(text);
  records.finish();
  return found;
}

}  // namespace fsllm
