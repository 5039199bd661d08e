// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace fsllm::test {

struct ParquetLayout {
  int64_t rows_a_group = 1000;
  bool packed = true;  ///< Snappy and dictionaries, as the hub's files are
};

/// JSON objects as the bytes of a Parquet file. The types of the columns follow from the values; a key that
/// a row lacks is null.
std::string parquet(std::vector<nlohmann::json> const& rows, ParquetLayout const& layout = {});

}  // namespace fsllm::test
