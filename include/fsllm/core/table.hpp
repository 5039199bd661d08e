// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {

/// One explicit row of a table of methods: a name, what it builds, one sentence for `--describe`.
template <class Builder>
struct Row {
  std::string name;
  Builder build;
  std::string what;
};

template <class Builder>
std::vector<std::string> names_of(std::vector<Row<Builder>> const& table) {
  std::vector<std::string> names;
  for (auto const& row : table) names.push_back(row.name);
  return names;
}

/// Finds a row by name; an unknown name is an error that names `key` and the nearest known name.
template <class Builder>
Row<Builder> const& find_row(std::vector<Row<Builder>> const& table, std::string_view name,
                             std::string_view key) {
  for (auto const& row : table)
    if (row.name == name) return row;
  fail(fmt::format("{} = '{}' (not a known name).{}", key, name, did_you_mean(name, names_of(table))));
}

/// "iid: shuffled, equal shares; lda: ...", for the sentence of a key.
template <class Builder>
std::string named_with_meaning(std::vector<Row<Builder>> const& table) {
  std::string text;
  for (auto const& row : table) text += (text.empty() ? "" : "; ") + row.name + ": " + row.what;
  return text;
}

}  // namespace fsllm
