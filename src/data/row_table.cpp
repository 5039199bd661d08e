// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/row_table.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace fsllm {
namespace {

template <class T>
void put(std::string& bytes, std::vector<T> const& values) {
  auto const size = values.size();
  bytes.append(reinterpret_cast<char const*>(&size), sizeof size);
  bytes.append(reinterpret_cast<char const*>(values.data()), size * sizeof(T));
}

void put(std::string& bytes, NameTable const& table) {
  std::string text;
  std::vector<int32_t> lengths;
  for (auto const& name : table.names()) {
    text += name;
    lengths.push_back(static_cast<int32_t>(name.size()));
  }
  put(bytes, lengths);
  bytes += text;
}

/// Takes values off the front of `rest`.
class Reader {
 public:
  explicit Reader(std::string_view rest) : rest_(rest) {}
  template <class T>
  std::vector<T> values() {
    size_t size = 0;
    std::memcpy(&size, rest_.data(), sizeof size);
    std::vector<T> values(size);
    std::memcpy(values.data(), rest_.data() + sizeof size, size * sizeof(T));
    rest_.remove_prefix(sizeof size + size * sizeof(T));
    return values;
  }
  NameTable names() {
    NameTable table;
    for (int32_t const length : values<int32_t>()) {
      table.number(std::string(rest_.substr(0, static_cast<size_t>(length))));
      rest_.remove_prefix(static_cast<size_t>(length));
    }
    return table;
  }

 private:
  std::string_view rest_;
};

}  // namespace

int32_t NameTable::number(std::string const& name) {
  auto const [found, is_new] = numbers_.emplace(name, static_cast<int32_t>(names_.size()));
  if (is_new) names_.push_back(name);
  return found->second;
}

void RowTable::add(Sample const& sample, int64_t record_number) {
  record.push_back(record_number);
  category.push_back(categories.number(sample.category));
  owner.push_back(owners.number(sample.owner));
  auto size = sample.ids.size() + sample.instruction.size() + sample.input.size() + sample.output.size();
  for (auto const& message : sample.messages) size += message.content.size();
  length.push_back(static_cast<int32_t>(std::min<size_t>(size, std::numeric_limits<int32_t>::max())));
}

RowTable row_table(std::vector<Sample> const& samples) {
  RowTable table;
  for (auto const& sample : samples) table.add(sample, table.rows());
  return table;
}

RowTable merge(std::vector<RowTable> const& parts) {
  struct Row {
    int64_t record;
    uint32_t part;
    uint32_t index;
  };
  std::vector<Row> order;
  for (uint32_t p = 0; p < parts.size(); ++p)
    for (uint32_t i = 0; i < parts[p].record.size(); ++i) order.push_back({parts[p].record[i], p, i});
  std::sort(order.begin(), order.end(), [](Row const& a, Row const& b) { return a.record < b.record; });
  RowTable all;
  for (auto const& row : order) {
    auto const& part = parts[row.part];
    all.record.push_back(row.record);
    all.category.push_back(all.categories.number(part.category_of(row.index)));
    all.owner.push_back(all.owners.number(part.owner_of(row.index)));
    all.length.push_back(part.length[row.index]);
  }
  return all;
}

std::string to_bytes(RowTable const& table) {
  std::string bytes;
  put(bytes, table.categories);
  put(bytes, table.owners);
  put(bytes, table.record);
  put(bytes, table.category);
  put(bytes, table.owner);
  put(bytes, table.length);
  return bytes;
}

RowTable row_table_from_bytes(std::string const& bytes) {
  Reader reader(bytes);
  RowTable table;
  table.categories = reader.names();
  table.owners = reader.names();
  table.record = reader.values<int64_t>();
  table.category = reader.values<int32_t>();
  table.owner = reader.values<int32_t>();
  table.length = reader.values<int32_t>();
  return table;
}

}  // namespace fsllm
