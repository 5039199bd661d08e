// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fsllm/text/sample.hpp"

namespace fsllm {

/// Names by number, in the order in which they first came.
class NameTable {
 public:
  int32_t number(std::string const& name);
  std::string const& name(int32_t number) const { return names_[static_cast<size_t>(number)]; }
  std::vector<std::string> const& names() const { return names_; }

 private:
  std::vector<std::string> names_;
  std::map<std::string, int32_t, std::less<>> numbers_;
};

/// What splitters know of each row of a data set: about 20 bytes, however long its text is.
struct RowTable {
  NameTable categories, owners;  ///< "" is the name of rows that have none
  std::vector<int64_t> record;   ///< [rows], ascending; number of the row's record among all of the data set
  std::vector<int32_t> category, owner;  ///< [rows]
  std::vector<int32_t> length;           ///< [rows], characters (token rows: tokens)

  int64_t rows() const { return static_cast<int64_t>(record.size()); }
  void add(Sample const& sample, int64_t record_number);
  std::string const& category_of(int64_t row) const {
    return categories.name(category[static_cast<size_t>(row)]);
  }
  std::string const& owner_of(int64_t row) const { return owners.name(owner[static_cast<size_t>(row)]); }
};

/// Of all samples in memory; row i is samples[i].
RowTable row_table(std::vector<Sample> const& samples);

/// One table of parts that hold different records, ordered by record number.
RowTable merge(std::vector<RowTable> const& parts);
/// A table as bytes, for other ranks.
std::string to_bytes(RowTable const& table);
RowTable row_table_from_bytes(std::string const& bytes);

}  // namespace fsllm
