// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/config.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;

Json scalar_schema(std::string const& type, Constraint const& constraint) {
  Json schema;
  if (type == "bool") schema["type"] = "boolean";
  if (type == "int") schema["type"] = "integer";
  if (type == "float") schema["type"] = "number";
  if (type == "string") schema["type"] = "string";
  if (type == "map of numbers") {
    schema["type"] = "object";
    schema["additionalProperties"]["type"] = "number";
  }
  if (type == "map of lists") schema["type"] = "object";
  if (!constraint.choices.empty()) schema["enum"] = constraint.choices;
  return schema;
}

Json key_schema(KeyInfo const& key) {
  Json schema;
  std::string const list = "list of ";
  if (key.type.starts_with(list)) {
    schema["type"] = "array";
    schema["items"] = scalar_schema(key.type.substr(list.size()), key.constraint);
  } else {
    schema = scalar_schema(key.type, key.constraint);
  }
  schema["description"] =
      key.doc + (key.constraint.text.empty() ? "" : fmt::format(" ({})", key.constraint.text));
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
      child = std::move(schema);
      return;
    }
    bool const list = path[end] == '[';
    child["type"] = list ? "array" : "object";
    at = list ? &child["items"] : &child;
    (*at)["type"] = "object";
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

std::string Config::json_schema() const {
  Json root;
  root["$schema"] = "http://json-schema.org/draft-07/schema#";
  root["title"] = "fsllm_hpc run configuration";
  root["type"] = "object";
  root["additionalProperties"] = false;
  for (auto const& key : keys()) put_schema(root, key.path, key_schema(key));
  return root.dump(2) + "\n";
}

}  // namespace fsllm
