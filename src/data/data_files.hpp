// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fsllm/data/dataset.hpp"

namespace fsllm {

/// A file of a data set, or one of those in a zip archive.
struct DataFile {
  std::filesystem::path path;
  std::string entry;  ///< "" for the file itself
};

bool is_parquet(std::string_view name);

/// The files of one of data.type's names in the order in which they are read. Where none is: an Error that
/// says which file to put where, and where it is published.
std::vector<DataFile> find_data_files(DataConfig const& config, std::string const& type,
                                      DataFormat const& format);

}  // namespace fsllm
