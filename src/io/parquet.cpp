// SPDX-License-Identifier: Apache-2.0
// The only place with headers of Apache Arrow.
#include "fsllm/io/parquet.hpp"

#include <arrow/array.h>
#include <arrow/io/memory.h>
#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/util/utf8.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/properties.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "json_reason.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

constexpr int64_t kRowsABatch = 1024, kBytesABatch = int64_t{16} << 20;
/// More, for one file, is a damaged length.
constexpr int64_t kMostMemory = int64_t{2} << 30;
constexpr int64_t kMostRowsAGroup = int64_t{1} << 31;
constexpr int kDeepestType = 32;
constexpr char const* kTornValue = "a value lies outside of its column (the file is damaged)";

/// Why a call of Arrow failed, on one line; "" where it did not.
template <class Call>
std::string problem_of(Call const& call) {
  std::string why;
  try {
    arrow::Status const status = call();
    if (status.ok()) return "";
    why = status.message();
  } catch (std::bad_alloc const&) {
    why = "it asks for more memory than there is";
  } catch (std::exception const& error) {
    why = error.what();
  }
  std::replace_if(
      why.begin(), why.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
  while (!why.empty() && (why.back() == '.' || why.back() == ' ')) why.pop_back();
  return why.empty() ? "Arrow does not say why" : shortened(why);
}

std::string set_text(std::string_view text, json& value) {
  if (!arrow::util::ValidateUTF8(text)) return "ill-formed UTF-8";
  value = text;
  return "";
}

template <class Array>
std::string read_number(arrow::Array const& array, int64_t at, json& value) {
  value = static_cast<Array const&>(array).Value(at);
  return "";
}

/// JSON has no infinity and no NaN, which pandas writes for a missing number.
template <class Array>
std::string read_float(arrow::Array const& array, int64_t at, json& value) {
  auto const number = static_cast<double>(static_cast<Array const&>(array).Value(at));
  if (std::isfinite(number)) value = number;
  return "";
}

template <class Array>
std::string read_text(arrow::Array const& array, int64_t at, json& value) {
  auto const& texts = static_cast<Array const&>(array);
  auto const begin = texts.value_offset(at), end = texts.value_offset(at + 1);
  auto const size = texts.value_data() == nullptr ? 0 : texts.value_data()->size();
  if (begin < 0 || end < begin || end > size) return kTornValue;
  return set_text(texts.GetView(at), value);
}

/// Short texts of this form lie in the column itself, long ones behind references that Arrow checks.
std::string read_text_view(arrow::Array const& array, int64_t at, json& value) {
  return set_text(static_cast<arrow::BinaryViewArray const&>(array).GetView(at), value);
}

std::string read_value(arrow::Array const& array, int64_t at, json& value);

template <class Array>
std::string read_list(arrow::Array const& array, int64_t at, json& value) {
  auto const& lists = static_cast<Array const&>(array);
  int64_t const begin = lists.value_offset(at), length = lists.value_length(at);
  auto const& values = *lists.values();
  if (begin < 0 || length < 0 || begin > values.length() - length) return kTornValue;
  value = json::array();
  for (int64_t i = begin; i < begin + length; ++i) {
    json element;
    if (auto why = read_value(values, i, element); !why.empty()) return why;
    value.push_back(std::move(element));
  }
  return "";
}

std::string read_struct(arrow::Array const& array, int64_t at, json& value) {
  auto const& fields = static_cast<arrow::StructArray const&>(array);
  value = json::object();
  for (int i = 0; i < fields.num_fields(); ++i) {
    auto const field = fields.field(i);
    if (at >= field->length()) return kTornValue;
    if (auto why = read_value(*field, at, value[fields.type()->field(i)->name()]); !why.empty()) return why;
  }
  return "";
}

std::string read_dictionary(arrow::Array const& array, int64_t at, json& value) {
  auto const& words = static_cast<arrow::DictionaryArray const&>(array);
  auto const index = words.GetValueIndex(at);
  if (index < 0 || index >= words.dictionary()->length()) return kTornValue;
  return read_value(*words.dictionary(), index, value);
}

/// Dates, times, decimals, as Arrow prints them.
std::string read_printed(arrow::Array const& array, int64_t at, json& value) {
  std::string text;
  auto const why = problem_of([&] {
    ARROW_ASSIGN_OR_RAISE(auto const scalar, array.GetScalar(at));
    text = scalar->ToString();
    return arrow::Status::OK();
  });
  return why.empty() ? set_text(text, value) : why;
}

/// Sets `value`, which is null, to a value of a column. Gives "", or why it cannot be read.
std::string read_value(arrow::Array const& array, int64_t at, json& value) {
  if (array.IsNull(at)) return "";
  using Type = arrow::Type;
  switch (array.type_id()) {
    case Type::NA:
      return "";
    case Type::BOOL:
      return read_number<arrow::BooleanArray>(array, at, value);
    case Type::INT8:
      return read_number<arrow::Int8Array>(array, at, value);
    case Type::INT16:
      return read_number<arrow::Int16Array>(array, at, value);
    case Type::INT32:
      return read_number<arrow::Int32Array>(array, at, value);
    case Type::INT64:
      return read_number<arrow::Int64Array>(array, at, value);
    case Type::UINT8:
      return read_number<arrow::UInt8Array>(array, at, value);
    case Type::UINT16:
      return read_number<arrow::UInt16Array>(array, at, value);
    case Type::UINT32:
      return read_number<arrow::UInt32Array>(array, at, value);
    case Type::UINT64:
      return read_number<arrow::UInt64Array>(array, at, value);
    case Type::FLOAT:
      return read_float<arrow::FloatArray>(array, at, value);
    case Type::DOUBLE:
      return read_float<arrow::DoubleArray>(array, at, value);
    case Type::STRING:
    case Type::BINARY:
      return read_text<arrow::BinaryArray>(array, at, value);
    case Type::LARGE_STRING:
    case Type::LARGE_BINARY:
      return read_text<arrow::LargeBinaryArray>(array, at, value);
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW:
      return read_text_view(array, at, value);
    case Type::LIST:
      return read_list<arrow::ListArray>(array, at, value);
    case Type::LARGE_LIST:
      return read_list<arrow::LargeListArray>(array, at, value);
    case Type::FIXED_SIZE_LIST:
      return read_list<arrow::FixedSizeListArray>(array, at, value);
    case Type::STRUCT:
      return read_struct(array, at, value);
    case Type::DICTIONARY:
      return read_dictionary(array, at, value);
    case Type::EXTENSION:
      return read_value(*static_cast<arrow::ExtensionArray const&>(array).storage(), at, value);
    default:
      return read_printed(array, at, value);
  }
}

std::string why_unreadable(arrow::DataType const& type, int depth = 0);

std::string why_unreadable(arrow::FieldVector const& fields, int depth) {
  std::set<std::string> names;
  for (auto const& field : fields) {
    if (!arrow::util::ValidateUTF8(field->name())) return "has a field whose name is ill-formed UTF-8";
    if (!names.insert(field->name()).second) return fmt::format("has the field '{}' twice", field->name());
    if (auto why = why_unreadable(*field->type(), depth); !why.empty()) return why;
  }
  return "";
}

/// What read_value makes of a type: "" if it reads it.
std::string why_unreadable(arrow::DataType const& type, int depth) {
  using Type = arrow::Type;
  if (depth > kDeepestType) return fmt::format("is nested more than {} levels deep", kDeepestType);
  auto const id = type.id();
  if (id <= Type::BINARY && id != Type::HALF_FLOAT) return "";
  switch (id) {
    case Type::LARGE_STRING:
    case Type::LARGE_BINARY:
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW:
      return "";
    case Type::LIST:
    case Type::LARGE_LIST:
    case Type::FIXED_SIZE_LIST:
      return why_unreadable(*type.field(0)->type(), depth + 1);
    case Type::STRUCT:
      return why_unreadable(type.fields(), depth + 1);
    case Type::DICTIONARY:
      return why_unreadable(*static_cast<arrow::DictionaryType const&>(type).value_type(), depth + 1);
    case Type::EXTENSION:
      return why_unreadable(*static_cast<arrow::ExtensionType const&>(type).storage_type(), depth + 1);
    default:
      break;
  }
  if (arrow::is_temporal(id) || arrow::is_decimal(id)) return "";
  return fmt::format("is of type {}, which has no counterpart in JSON", shortened(type.ToString()));
}

class ParquetFile {
 public:
  ParquetFile(std::filesystem::path const& path, std::vector<std::string> const& columns,
              ParquetRows const& rows)
      : name_(path.string()), file_(path), pool_(arrow::system_memory_pool(), kMostMemory), rows_(rows) {
    auto const text = file_.text();
    require_whole(text.empty() ? "it is empty" : is_lfs_pointer(text) ? kLfsPointer : "");
    require_whole(problem_of([&] { return open(); }));
    choose(columns);
  }

  int64_t read() {
    int64_t first = 0;
    for (int group = 0; group < reader_->num_row_groups(); ++group) {
      int64_t const rows = group_rows(group);
      read_group(group, first, first + rows);
      first += rows;
    }
    return first;
  }

 private:
  void require_whole(std::string const& why) const {
    FSLLM_CHECK(why.empty(), "{}: not a whole Parquet file ({}). Copy the file again.", name_, why);
  }

  int64_t group_rows(int group) const { return metadata_->RowGroup(group)->num_rows(); }

  arrow::Status open() {
    arrow::util::InitializeUTF8();
    parquet::ReaderProperties properties(&pool_);
    properties.set_page_checksum_verification(true);
    parquet::ArrowReaderProperties batches(false);
    batches.set_pre_buffer(false);
    auto const bytes = std::make_shared<arrow::Buffer>(reinterpret_cast<uint8_t const*>(file_.text().data()),
                                                       static_cast<int64_t>(file_.text().size()));
    parquet::arrow::FileReaderBuilder builder;
    ARROW_RETURN_NOT_OK(builder.Open(std::make_shared<arrow::io::BufferReader>(bytes), properties));
    ARROW_RETURN_NOT_OK(builder.memory_pool(&pool_)->properties(batches)->Build(&reader_));
    metadata_ = reader_->parquet_reader()->metadata();
    for (int group = 0; group < reader_->num_row_groups(); ++group)
      if (auto const rows = group_rows(group); rows < 0 || rows > kMostRowsAGroup)
        return arrow::Status::Invalid("row group ", group, " has ", rows, " rows");
    return reader_->GetSchema(&schema_);
  }

  /// Which columns are read. Where none of them is in the file, the first stands in: rows can be counted.
  void choose(std::vector<std::string> const& columns) {
    auto const& leaves = *metadata_->schema();
    require_whole(leaves.num_columns() == 0 ? "it has no columns" : "");
    arrow::FieldVector chosen;
    for (auto const& field : schema_->fields()) {
      require_whole(arrow::util::ValidateUTF8(field->name()) ? "" : "a column's name is ill-formed UTF-8");
      blank_[field->name()] = nullptr;
      if (columns.empty() || std::find(columns.begin(), columns.end(), field->name()) != columns.end()) {
        chosen.push_back(field);
        names_.insert(field->name());
      }
    }
    for (auto const& field : chosen) {
      auto const why = why_unreadable({field}, 0);
      FSLLM_CHECK(why.empty(), "{}: column '{}' {}. Convert it, or leave it out.", name_, field->name(), why);
    }
    FSLLM_CHECK(names_.size() == chosen.size(), "{}: {}. Give each column a name of its own.", name_,
                why_unreadable(chosen, 0));
    for (int leaf = 0; leaf < leaves.num_columns(); ++leaf) {
      auto const& name = leaves.GetColumnRoot(leaf)->name();
      if (names_.contains(name) || (names_.empty() && name == leaves.GetColumnRoot(0)->name()))
        leaves_.push_back(leaf);
    }
  }

  bool wanted(int64_t row) const { return !rows_.wanted || rows_.wanted(row); }

  int64_t batch_rows(int group) const {
    auto const a_row =
        metadata_->RowGroup(group)->total_byte_size() / std::max<int64_t>(group_rows(group), 1);
    return std::clamp<int64_t>(kBytesABatch / std::max<int64_t>(a_row, 1), 1, kRowsABatch);
  }

  /// Batches begin at the same rows whatever is wanted, so which rows a damage takes does not depend on it.
  void read_group(int group, int64_t first, int64_t end) {
    int64_t from = first;
    while (from < end && !wanted(from)) ++from;
    if (from == end) return;
    std::unique_ptr<arrow::RecordBatchReader> batches;
    reader_->set_batch_size(batch_rows(group));
    auto why = problem_of([&] { return reader_->GetRecordBatchReader({group}, leaves_).Value(&batches); });
    std::shared_ptr<arrow::RecordBatch> batch;
    while (why.empty() && first < end) {
      why = problem_of([&] { return next(*batches, batch); });
      if (!why.empty()) break;
      int64_t const count = std::min(batch->num_rows(), end - first);
      for (int64_t i = 0; i < count; ++i)
        if (first + i >= from && wanted(first + i)) read_row(*batch, i, first + i);
      first += count;
    }
    if (!why.empty())
      lose(std::max(first, from), end,
           fmt::format("the Parquet rows {} to {} cannot be read ({})", first + 1, end, why));
  }

  static arrow::Status next(arrow::RecordBatchReader& batches, std::shared_ptr<arrow::RecordBatch>& batch) {
    ARROW_RETURN_NOT_OK(batches.ReadNext(&batch));
    if (batch == nullptr || batch->num_rows() == 0)
      return arrow::Status::Invalid("the file has fewer than it says");
    return batch->Validate();
  }

  void read_row(arrow::RecordBatch const& batch, int64_t at, int64_t row) {
    json record = blank_;
    for (int i = 0; i < batch.num_columns(); ++i) {
      auto const& name = batch.column_name(i);
      if (!names_.contains(name)) continue;
      if (auto const why = read_value(*batch.column(i), at, record[name]); !why.empty())
        return report(fmt::format("column '{}': {}", name, why), row, 1);
    }
    rows_.row(record, place(row));
  }

  void lose(int64_t first, int64_t end, std::string const& why) {
    int64_t rows = end - first, first_lost = first;
    if (rows_.wanted) {
      rows = 0;
      for (int64_t row = end - 1; row >= first; --row)
        if (wanted(row)) {
          ++rows;
          first_lost = row;
        }
    }
    if (rows > 0) report(why, first_lost, rows);
  }

  RecordPlace place(int64_t row) const { return {name_, row + 1, true}; }
  void report(std::string const& why, int64_t row, int64_t rows) const {
    FSLLM_CHECK(rows_.bad, "{}: {}", place(row).text(), why);
    rows_.bad(why, place(row), rows);
  }

  std::string name_;
  MappedFile file_;
  arrow::CappedMemoryPool pool_;
  ParquetRows const& rows_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::shared_ptr<parquet::FileMetaData> metadata_;
  std::shared_ptr<arrow::Schema> schema_;
  std::set<std::string, std::less<>> names_;  ///< of the columns that are read
  std::vector<int> leaves_;
  json blank_ = json::object();  ///< every column, null
};

}  // namespace

bool reads_parquet() {
  return true;
}

void need_parquet(std::string const&) {}

int64_t for_each_parquet_row(std::filesystem::path const& path, std::vector<std::string> const& columns,
                             ParquetRows const& rows) {
  return ParquetFile(path, columns, rows).read();
}

}  // namespace fsllm
