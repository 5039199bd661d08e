// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm {

struct CsvRecord {
  std::vector<std::string> fields;
  int64_t line = 0;  ///< of its beginning, from 1
};

/// The records of comma-separated text (RFC 4180): fields in quotes may hold commas, line ends and doubled
/// quotes. A byte order mark and blank lines are passed over. An open quote, text behind a closing one, and
/// bytes that are no UTF-8 are Errors "source:line: why".
std::vector<CsvRecord> parse_csv(std::string_view text, std::string const& source);

}  // namespace fsllm
