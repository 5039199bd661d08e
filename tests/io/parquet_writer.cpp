// SPDX-License-Identifier: Apache-2.0
#include "parquet_writer.hpp"

#include <arrow/array.h>
#include <arrow/builder.h>
#include <arrow/io/memory.h>
#include <arrow/table.h>
#include <parquet/arrow/writer.h>

#include <algorithm>
#include <stdexcept>

namespace fsllm::test {
namespace {

using nlohmann::json;
using Type = std::shared_ptr<arrow::DataType>;
using Values = std::vector<json const*>;

void require(arrow::Status const& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

Type type_of(Values const& values);

Type list_of(Values const& lists) {
  Values elements;
  for (auto const* list : lists)
    for (auto const& element : *list) elements.push_back(&element);
  return arrow::list(type_of(elements));
}

arrow::FieldVector fields_of(Values const& objects) {
  std::vector<std::string> names;
  for (auto const* object : objects)
    for (auto const& [name, value] : object->items())
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  arrow::FieldVector fields;
  for (auto const& name : names) {
    Values values;
    for (auto const* object : objects)
      if (object->contains(name)) values.push_back(&object->at(name));
    fields.push_back(arrow::field(name, type_of(values)));
  }
  return fields;
}

Type type_of(Values const& all) {
  Values values;
  std::copy_if(all.begin(), all.end(), std::back_inserter(values),
               [](auto const* v) { return !v->is_null(); });
  if (values.empty()) return arrow::null();
  auto const& first = *values.front();
  if (first.is_array()) return list_of(values);
  if (first.is_object()) return arrow::struct_(fields_of(values));
  if (first.is_boolean()) return arrow::boolean();
  if (first.is_number_float()) return arrow::float64();
  return first.is_number() ? arrow::int64() : arrow::utf8();
}

void append(arrow::ArrayBuilder& builder, json const& value) {
  if (value.is_null()) return require(builder.AppendNull());
  switch (builder.type()->id()) {
    case arrow::Type::BOOL:
      return require(dynamic_cast<arrow::BooleanBuilder&>(builder).Append(value.get<bool>()));
    case arrow::Type::DOUBLE:
      return require(dynamic_cast<arrow::DoubleBuilder&>(builder).Append(value.get<double>()));
    case arrow::Type::INT64:
      return require(dynamic_cast<arrow::Int64Builder&>(builder).Append(value.get<int64_t>()));
    case arrow::Type::STRING:
      return require(dynamic_cast<arrow::StringBuilder&>(builder).Append(value.get<std::string>()));
    case arrow::Type::LIST: {
      auto& lists = dynamic_cast<arrow::ListBuilder&>(builder);
      require(lists.Append());
      for (auto const& element : value) append(*lists.value_builder(), element);
      return;
    }
    default: {
      auto& fields = dynamic_cast<arrow::StructBuilder&>(builder);
      require(fields.Append());
      for (int i = 0; i < fields.num_fields(); ++i)
        append(*fields.field_builder(i), value.value(fields.type()->field(i)->name(), json()));
    }
  }
}

}  // namespace

std::string parquet(std::vector<json> const& rows, ParquetLayout const& layout) {
  Values objects;
  for (auto const& row : rows) objects.push_back(&row);
  auto const fields = fields_of(objects);
  arrow::ArrayVector columns;
  for (auto const& field : fields) {
    auto builder = arrow::MakeBuilder(field->type()).ValueOrDie();
    for (auto const& row : rows) append(*builder, row.value(field->name(), json()));
    columns.push_back(builder->Finish().ValueOrDie());
  }
  auto const table = arrow::Table::Make(arrow::schema(fields), columns, static_cast<int64_t>(rows.size()));
  parquet::WriterProperties::Builder properties;
  properties.disable_statistics();
  layout.packed ? properties.compression(parquet::Compression::SNAPPY) : properties.disable_dictionary();
  auto const out = arrow::io::BufferOutputStream::Create().ValueOrDie();
  require(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), out, layout.rows_a_group,
                                     properties.build()));
  return out->Finish().ValueOrDie()->ToString();
}

}  // namespace fsllm::test
