// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/io/jsonl.hpp"

namespace fsllm {

/// Does this build read Parquet files (CMake option FSLLM_PARQUET)?
bool reads_parquet();
/// Where it does not: an Error that begins with `what` and says how to get a build that does, or how to
/// convert the file.
void need_parquet(std::string const& what);

/// Who takes the rows of a Parquet file.
struct ParquetRows {
  std::function<void(nlohmann::json const&, RecordPlace const&)> row;
  /// Rows that cannot be read: one with a value that JSON cannot hold, or (`why` begins with "the Parquet
  /// rows") the rest of a damaged row group, of which `rows` were wanted. Without it, an Error.
  std::function<void(std::string const& why, RecordPlace const&, int64_t rows)> bad;
  /// No: the row, counted from 0, is passed over; must answer the same when asked again. Row groups without
  /// a wanted row are not read.
  std::function<bool(int64_t row)> wanted;
};

/// Reads a file batch by batch; each row becomes a JSON object with every column of the file, where those
/// that are not in `columns` (empty: all are) stay null unread. Gives the number of rows in the file. A file
/// that is not whole, or a column of a type that has no counterpart in JSON, is an Error.
int64_t for_each_parquet_row(std::filesystem::path const& path, std::vector<std::string> const& columns,
                             ParquetRows const& rows);

}  // namespace fsllm
