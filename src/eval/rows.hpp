// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace fsllm::detail {

/// One record of a task's file; every error names its place.
struct TaskRow {
  nlohmann::json const& json;
  std::string place;  ///< "file:line"
  bool has(char const* key) const { return json.contains(key) && !json.at(key).is_null(); }
  std::string text(char const* key) const;
  /// A list of texts, or one text.
  std::vector<std::string> texts(char const* key) const;
  int64_t integer(char const* key, int64_t fallback) const;
  [[noreturn]] void refuse(std::string const& message) const;
};

/// The first `limit` records (0: all) of JSON lines or an array, plain or gzip. A file without any is an
/// Error.
void for_each_row(std::filesystem::path const& file, int64_t limit,
                  std::function<void(TaskRow const&)> const& row);

}  // namespace fsllm::detail
