// SPDX-License-Identifier: Apache-2.0
// A Parquet file: an Error, or rows that are JSON objects with strict UTF-8, in order.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/parquet.hpp"
#include "memory_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  fsllm::test::MemoryFile const file(data, size);
  int64_t last = 0;
  auto const in_order = [&](fsllm::RecordPlace const& place) {
    if (place.line <= last || !place.is_row) std::abort();
    last = place.line;
  };
  fsllm::ParquetRows rows;
  rows.row = [&](nlohmann::json const& record, fsllm::RecordPlace const& place) {
    in_order(place);
    if (!record.is_object() || record.dump().empty()) std::abort();
  };
  rows.bad = [&](std::string const& why, fsllm::RecordPlace const& place, int64_t count) {
    in_order(place);
    if (why.empty() || count < 1) std::abort();
  };
  try {
    if (fsllm::for_each_parquet_row(file.path(), {}, rows) < last) std::abort();
  } catch (fsllm::Error const&) {
  }
  return 0;
}
