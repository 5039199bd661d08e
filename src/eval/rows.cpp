// SPDX-License-Identifier: Apache-2.0
#include "rows.hpp"

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm::detail {

void TaskRow::refuse(std::string const& message) const {
  fail(fmt::format("{}: {}", place, message));
}

std::string TaskRow::text(char const* key) const {
  if (!has(key)) refuse(fmt::format("'{}' is missing. Add it.", key));
  if (!json.at(key).is_string())
    refuse(fmt::format("'{}' = {:.60} (a text is needed). Correct it.", key, json.at(key).dump()));
  return json.at(key).get<std::string>();
}

std::vector<std::string> TaskRow::texts(char const* key) const {
  if (!has(key)) refuse(fmt::format("'{}' is missing. Add it.", key));
  auto const& value = json.at(key);
  std::vector<std::string> texts;
  for (auto const& each : value.is_array() ? value : nlohmann::json::array({value})) {
    if (!each.is_string())
      refuse(fmt::format("'{}' holds {:.60} (texts are needed). Correct it.", key, each.dump()));
    texts.push_back(each.get<std::string>());
  }
  if (texts.empty()) refuse(fmt::format("'{}' is empty. Fill it.", key));
  return texts;
}

int64_t TaskRow::integer(char const* key, int64_t fallback) const {
  if (!has(key)) return fallback;
  auto const& value = json.at(key);
  if (!value.is_number_integer() || value.get<int64_t>() < 0)
    refuse(fmt::format("'{}' = {:.60} (a whole number from 0 is needed). Correct it.", key, value.dump()));
  return value.get<int64_t>();
}

void for_each_row(std::filesystem::path const& file, int64_t limit,
                  std::function<void(TaskRow const&)> const& row) {
  int64_t count = 0;
  for_each_json_record(file, [&](nlohmann::json const& json, RecordPlace const& place) {
    if (limit > 0 && count >= limit) return;
    ++count;
    row({json, place.text()});
  });
  FSLLM_CHECK(count > 0, "{} holds no rows (the file is empty). Copy it again.", file.string());
}

}  // namespace fsllm::detail
