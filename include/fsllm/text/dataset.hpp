// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fsllm/core/table.hpp"
#include "fsllm/text/data_config.hpp"
#include "fsllm/text/sample.hpp"

namespace fsllm {

/// How the rows of one data set are written. Empty field names: the data set has no such field.
struct DataFormat {
  std::vector<std::string>
      files;  ///< accepted names under data.root, each also with .gz; the first present is read
  std::string instruction, input, output, category;
  std::string (*answer)(std::string const&) = nullptr;  ///< changes the output, where the data set needs it
  std::string source;                                   ///< where the file is published
};
/// A new data set is one more row here.
std::vector<Row<DataFormat>> const& data_formats();

/// The format that `data.type` names: a row of the table, or a .json / .jsonl file. An unknown name is an
/// Error that begins with `key`.
DataFormat data_format(std::string const& type, std::string const& key);

/// What a pass over a data set met.
struct ReadCounts {
  int64_t rows = 0;  ///< handed over
  int64_t bad = 0;   ///< skipped (`data.on_bad_row: skip`)
};

/// Hands over the samples of `data.type` (a name of the table, or a .json / .jsonl file) under `data.root`,
/// one by one in the order of the files. Rows that have `input_ids` are token rows. A bad row is an Error
/// with file:line, or skipped and counted (`data.on_bad_row`); so is a data set without rows. With `wanted`,
/// records for whose number it says no are passed over unread.
ReadCounts for_each_sample(DataConfig const& config, std::function<void(Sample&&)> const& row,
                           std::function<bool(int64_t record)> const& wanted = {});

/// All of them in memory; `skipped` gets the number of bad rows.
std::vector<Sample> read_samples(DataConfig const& config, int64_t* skipped = nullptr);

}  // namespace fsllm
