// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/config.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;

/// A number as the language of schemas writes it: 1, not 1.0.
Json number(double value) {
  auto const whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? Json(whole) : Json(value);
}

/// A value of a default, from its YAML text.
Json value_of(std::string const& type, std::string const& text) {
  if (type == "bool") return lower_case(text) == "true";
  if (type == "int") return std::stoll(text);
  return type == "float" ? number(std::stod(text)) : Json(text);
}

Json scalar_schema(std::string const& type, Constraint const& constraint) {
  Json schema;
  if (type == "bool") schema["type"] = Json::array({"boolean", "null"});
  if (type == "int") schema["type"] = Json::array({"integer", "null"});
  if (type == "float") {
    schema["type"] = Json::array({"number", "string", "null"});
    schema["pattern"] = "^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$";
  }
  if (type == "string" && constraint.choices.empty())
    schema["type"] = Json::array({"string", "number", "boolean", "null"});
  if (constraint.low) schema[constraint.above_low ? "exclusiveMinimum" : "minimum"] = number(*constraint.low);
  if (constraint.high)
    schema[constraint.below_high ? "exclusiveMaximum" : "maximum"] = number(*constraint.high);
  if (!constraint.choices.empty()) {
    schema["enum"] = constraint.choices;
    schema["enum"].push_back(nullptr);
  }
  return schema;
}

Json key_schema(KeyInfo const& key) {
  Json schema;
  std::string const list = "list of ";
  if (key.type == "string or list of string") {
    schema["type"] = Json::array({"string", "array", "null"});
    schema["items"] = scalar_schema("string", key.constraint);
  } else if (key.type.starts_with(list)) {
    auto const type = key.type.substr(list.size());
    schema["type"] = Json::array({"array", "null"});
    schema["items"] = scalar_schema(type, key.constraint);
    schema["default"] = Json::array();
    auto const values = Config::parse("value: " + key.default_text, key.path);
    for (auto const& item : values.items("value")) schema["default"].push_back(value_of(type, item));
  } else if (key.type.starts_with("map of ")) {
    schema["type"] = Json::array({"object", "null"});
    if (key.type == "map of numbers") schema["additionalProperties"] = scalar_schema("float", key.constraint);
    schema["default"] = Json::object();
  } else {
    schema = scalar_schema(key.type, key.constraint);
    schema["default"] = value_of(key.type, key.default_value().value_or(""));
  }
  schema["description"] =
      key.doc + (key.constraint.text.empty() ? "" : fmt::format(" ({})", key.constraint.text));
  return schema;
}

/// What stands for `values`, as YAML's readers give them.
Json accepted_schema(AcceptedKey const& key) {
  auto schema = Json::object();
  schema["description"] = "A key of FS-LLM that is not read.";
  if (!key.values) return schema;
  schema["enum"] = Json::array({nullptr});
  for (auto const& value : *key.values) {
    schema["enum"].push_back(value);
    if (value == "False") schema["enum"].push_back(false);
    if (value == "[]") schema["enum"].push_back(Json::array());
  }
  return schema;
}

/// The schema object that holds the properties of `path`'s parent, made on the way.
void put_schema(Json& root, std::string const& path, Json schema) {
  Json* at = &root;
  size_t begin = 0;
  for (;;) {
    size_t const end = path.find_first_of(".[", begin);
    auto const name = path.substr(begin, end == std::string::npos ? end : end - begin);
    Json& child = (*at)["properties"][name];
    if (end == std::string::npos) {
      // A section of which some keys are known apart.
      bool const section = child.is_object() && child.contains("properties");
      if (section)
        child["additionalProperties"] = true;
      else
        child = std::move(schema);
      return;
    }
    bool const list = path[end] == '[';
    child["type"] = Json::array({list ? "array" : "object", "null"});
    at = list ? &child["items"] : &child;
    if (list) (*at)["type"] = "object";
    (*at)["additionalProperties"] = false;
    begin = list ? path.find(']', end) + 2 : end + 1;
  }
}

/// Text that does not end its table cell.
std::string in_cell(std::string const& text) {
  std::string cell;
  for (char const c : text) cell += c == '|' ? std::string("\\|") : std::string(1, c);
  return cell;
}

}  // namespace

std::optional<std::string> KeyInfo::default_value() const {
  return Config::parse("value: " + default_text, path).text("value");
}

std::string Config::describe(std::string const& filter) const {
  auto all = keys();
  std::sort(all.begin(), all.end(), [](auto const& a, auto const& b) { return a.path < b.path; });
  std::string text;
  for (auto const& key : all) {
    if (key.path.find(filter) == std::string::npos) continue;
    auto const range = key.constraint.text.empty() ? "" : ", " + key.constraint.text;
    text += fmt::format("{}\n    {}, default {}{}\n    {}\n", key.path, key.type, key.default_text, range,
                        key.doc);
  }
  return text;
}

std::string Config::markdown() const {
  auto all = keys();
  std::sort(all.begin(), all.end(), [](auto const& a, auto const& b) { return a.path < b.path; });
  std::string text, section;
  for (auto const& key : all) {
    auto const dot = key.path.find('.');
    auto const its = dot == std::string::npos ? std::string("top level") : key.path.substr(0, dot);
    if (its != section)
      text += fmt::format("\n## {}\n\n| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n",
                          its);
    section = its;
    text += fmt::format("| `{}` | {} | {} | {} | {} |\n", key.path, key.type, in_cell(key.default_text),
                        in_cell(key.constraint.text), in_cell(key.doc));
  }
  return text;
}

std::string Config::json_schema(std::vector<AcceptedKey> const& accepted) const {
  Json root;
  root["$schema"] = "http://json-schema.org/draft-07/schema#";
  root["title"] = "fsllm_hpc run configuration";
  root["type"] = "object";
  root["additionalProperties"] = false;
  for (auto const& key : keys()) put_schema(root, key.path, key_schema(key));
  for (auto const& key : accepted) put_schema(root, key.path, accepted_schema(key));
  return root.dump(2) + "\n";
}

}  // namespace fsllm
