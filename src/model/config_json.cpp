// SPDX-License-Identifier: Apache-2.0
#include "config_json.hpp"

#include <cmath>
#include <limits>
#include <utility>

#include "fsllm/core/error.hpp"

namespace fsllm::detail {

using nlohmann::json;

ConfigJson::ConfigJson(json object, std::string source)
    : object_(std::move(object)), source_(std::move(source)) {
  if (!object_.is_object()) refuse("not a JSON object. Copy the file from the model's folder again.");
}

void ConfigJson::refuse(std::string const& message) const {
  fail(fmt::format("{}: {}", source_, message));
}

json const* ConfigJson::find(std::string const& key) const {
  auto const found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool ConfigJson::has(std::string const& key) const {
  return find(key) != nullptr;
}

bool ConfigJson::is_null(std::string const& key) const {
  auto const found = object_.find(key);
  return found != object_.end() && found->is_null();
}

int64_t ConfigJson::integer(std::string const& key) const {
  if (!has(key))
    refuse(fmt::format("'{}' is missing (this model type needs it). Use the model's own config.json.", key));
  return integer(key, 0);
}

int64_t ConfigJson::integer(std::string const& key, int64_t fallback) const {
  auto const* value = find(key);
  if (value == nullptr) return fallback;
  bool const fits = value->is_number_integer() &&
                    (!value->is_number_unsigned() ||
                     value->get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  if (!fits) refuse(fmt::format("'{}' = {} (a whole number is needed). Correct it.", key, value->dump()));
  return value->get<int64_t>();
}

int64_t ConfigJson::size(std::string const& key, int64_t largest) const {
  int64_t const value = integer(key);
  if (value < 1 || value > largest)
    refuse(fmt::format("'{}' = {} (must be in 1 .. {}). Correct it.", key, value, largest));
  return value;
}

int64_t ConfigJson::size_or(std::string const& key, int64_t fallback, int64_t largest) const {
  return has(key) ? size(key, largest) : fallback;
}

double ConfigJson::number(std::string const& key, double fallback) const {
  auto const* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_number() || !std::isfinite(value->get<double>()))
    refuse(fmt::format("'{}' = {} (a number is needed). Correct it.", key, value->dump()));
  return value->get<double>();
}

double ConfigJson::probability(std::string const& key, double fallback) const {
  double const value = number(key, fallback);
  if (value < 0 || value >= 1) refuse(fmt::format("'{}' = {} (must be in [0, 1)). Correct it.", key, value));
  return value;
}

bool ConfigJson::boolean(std::string const& key, bool fallback) const {
  auto const* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean())
    refuse(fmt::format("'{}' = {} (true or false is needed). Correct it.", key, value->dump()));
  return value->get<bool>();
}

std::string ConfigJson::text(std::string const& key, std::string const& fallback) const {
  auto const* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string())
    refuse(fmt::format("'{}' = {} (a string is needed). Correct it.", key, value->dump()));
  return value->get<std::string>();
}

std::vector<std::string> ConfigJson::texts(std::string const& key) const {
  std::vector<std::string> texts;
  auto const* value = find(key);
  if (value == nullptr) return texts;
  if (!value->is_array())
    refuse(fmt::format("'{}' = {} (a list of strings is needed). Correct it.", key, value->dump()));
  for (auto const& item : *value) {
    if (!item.is_string())
      refuse(fmt::format("'{}' holds {} (a string is needed). Correct it.", key, item.dump()));
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

std::vector<double> ConfigJson::numbers(std::string const& key) const {
  auto const* value = find(key);
  if (value == nullptr || !value->is_array())
    refuse(fmt::format("'{}' = {} (a list of numbers is needed). Correct it.", key,
                       value == nullptr ? "null" : value->dump()));
  std::vector<double> numbers;
  for (auto const& item : *value) {
    if (!item.is_number() || !std::isfinite(item.get<double>()))
      refuse(fmt::format("'{}' holds {} (a number is needed). Correct it.", key, item.dump()));
    numbers.push_back(item.get<double>());
  }
  return numbers;
}

std::vector<std::string> ConfigJson::repeated_texts(std::string const& key, int64_t most) const {
  auto const* value = find(key);
  auto const wrong = [&] {
    refuse(fmt::format("'{}' = {} (a list like [[[\"global\", \"local\"], 12]] is needed). Correct it.", key,
                       value == nullptr ? "null" : value->dump()));
  };
  if (value == nullptr || !value->is_array()) wrong();
  std::vector<std::string> texts;
  for (auto const& group : *value) {
    bool const pair =
        group.is_array() && group.size() == 2 && group[0].is_array() && group[1].is_number_integer();
    if (!pair || group[1] < 1 || group[1] > most) wrong();
    for (int64_t again = group[1].get<int64_t>(); again > 0; --again)
      for (auto const& text : group[0]) {
        if (!text.is_string() || static_cast<int64_t>(texts.size()) >= most) wrong();
        texts.push_back(text.get<std::string>());
      }
  }
  return texts;
}

std::vector<int32_t> ConfigJson::token_ids(std::string const& key) const {
  std::vector<int32_t> ids;
  auto const* value = find(key);
  if (value == nullptr) return ids;
  if (*value == -1) return ids;  // LLaMA's first files say so where there is none
  for (auto const& item : value->is_array() ? *value : json::array({*value})) {
    bool const valid =
        item.is_number_integer() && item.get<double>() >= 0 && item.get<double>() < 2147483648.0;
    if (!valid) refuse(fmt::format("'{}' = {} (token ids are needed). Correct it.", key, value->dump()));
    ids.push_back(item.get<int32_t>());
  }
  return ids;
}

ConfigJson ConfigJson::object(std::string const& key) const {
  auto const* value = find(key);
  if (value != nullptr && !value->is_object())
    refuse(fmt::format("'{}' = {} (an object is needed). Correct it.", key, value->dump()));
  return {value == nullptr ? json::object() : *value, fmt::format("{}: {}", source_, key)};
}

std::vector<std::string> ConfigJson::object_keys() const {
  std::vector<std::string> keys;
  for (auto const& [key, value] : object_.items())
    if (value.is_object()) keys.push_back(key);
  return keys;
}

}  // namespace fsllm::detail
