// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fsllm/core/table.hpp"
#include "fsllm/data/data_config.hpp"
#include "fsllm/text/sample.hpp"

namespace fsllm {

/// How the rows of one data set are written, and which files hold them. Empty field names: the data set has
/// no such field.
struct DataFormat {
  std::vector<std::string>
      files;  ///< names under data.root, each also with .gz or as .parquet; the first present is read
  std::string instruction, input, output, category;
  std::string source;                 ///< where the file is published
  void (*finish)(Sample&) = nullptr;  ///< changes a row as read, where the data set needs it
  bool (*keep)(Sample const&, DataConfig const&) = nullptr;  ///< no: the row does not belong to this run
  std::vector<std::string> parts;  ///< of data sets in several archives: PART.zip or the folder PART
  bool custom = false;             ///< the user's own file: its rows may be chats, preferences, texts ...
  bool plain_text = false;         ///< no JSON: blocks between blank lines
  bool delimited = false;          ///< CSV or TSV, with a line of names
};
/// A new data set is one more row here.
std::vector<Row<DataFormat>> const& data_formats();

/// The format that `data.type` names: a row of the table, or a .json, .jsonl, .csv, .tsv, .parquet or .txt
/// file, with wildcards too. An unknown name is an Error that begins with `key`.
DataFormat data_format(std::string const& type, std::string const& key);

/// Does `data.subsample` take its share of each category (CodeSearchNet's languages), not of all rows?
bool subsampled_by_category(std::string const& type);

/// What a pass over a data set met.
struct ReadCounts {
  int64_t rows = 0;  ///< handed over
  int64_t bad = 0;   ///< skipped (`data.on_bad_row: skip`)
};

/// Hands over the samples of `data.type` (a name of the table, or the user's own files) under `data.root`,
/// one by one in the order of the files, in bounded memory. A bad row is an Error with its place, or skipped
/// and counted (`data.on_bad_row`); no row at all is an Error. With `wanted`, records for whose number it
/// says no are passed over unread.
ReadCounts for_each_sample(DataConfig const& config, std::function<void(Sample&&)> const& row,
                           std::function<bool(int64_t record)> const& wanted = {});

/// All of them in memory; `skipped` gets the number of bad rows.
std::vector<Sample> read_samples(DataConfig const& config, int64_t* skipped = nullptr);

}  // namespace fsllm
