// SPDX-License-Identifier: Apache-2.0
#include "arguments.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm::detail {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
bool is_kind(Json const& value) {
  if constexpr (std::is_same_v<T, bool>) return value.is_boolean();
  if constexpr (std::is_same_v<T, int64_t>) return value.is_number_integer();
  if constexpr (std::is_same_v<T, double>) return value.is_number();
  if constexpr (std::is_same_v<T, std::string>) return value.is_string();
  if constexpr (requires { typename T::value_type::size_type; })
    return value.is_array() && std::all_of(value.begin(), value.end(), is_kind<std::string>);
  else if constexpr (requires { typename T::value_type; })
    return value.is_array() && std::all_of(value.begin(), value.end(), is_kind<int64_t>);
  return false;
}

template <class T>
std::string shown(T const& value) {
  return fmt::format("{}", value);
}
template <class T>
std::string shown(std::vector<T> const& values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}
std::string shown(Targets const& targets) {
  return targets.pattern.empty() ? shown(targets.names) : targets.pattern;
}
std::string shown(Patterns const& patterns) {
  std::vector<std::string> parts;
  for (auto const& [pattern, number] : patterns) parts.push_back(fmt::format("{}: {}", pattern, number));
  return fmt::format("{{{}}}", fmt::join(parts, ", "));
}

/// Saved numbers and names are held to the ranges of the YAML.
void check_saved(std::string const& where, double number, Constraint const& constraint) {
  FSLLM_CHECK(!constraint.allows || constraint.allows(number),
              "{} = {} (must be {}). Export the adapter again.", where, number, constraint.text);
}
void check_saved(std::string const& where, std::string const& text, Constraint const& constraint) {
  auto const& choices = constraint.choices;
  FSLLM_CHECK(choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end(),
              "{} = '{}' (must be {}). Use another adapter.", where, text, constraint.text);
}
template <class T>
void check_saved(std::string const& where, std::vector<T> const& values, Constraint const& constraint) {
  for (auto const& value : values) check_saved(where, value, constraint);
}

bool is_nothing(Json const& value) {
  if (value.is_boolean()) return !value.get<bool>();
  return value.is_null() || (value.is_structured() && value.empty());
}

Targets sorted(Targets targets) {
  std::sort(targets.names.begin(), targets.names.end());
  return targets;
}

}  // namespace

Arguments::Arguments(Config& config, SavedConfig saved, Json const& presets)
    : config_(config), saved_(std::move(saved)) {
  assume(presets);
}

std::string Arguments::where(std::string const& name) const {
  auto const key = kArgs + "." + name;
  if (saved() && !config_.has(key)) return fmt::format("{}: '{}'", saved_.file, name);
  return config_.where(key);
}

Json const& Arguments::stored(std::string const& name) const {
  static Json const nothing;
  for (auto const* source : {&saved_.json, &presets_})
    if (auto const found = source->find(name); found != source->end() && !found->is_null()) return *found;
  return nothing;
}

template <class T>
T Arguments::start(std::string const& name, T const& fallback, Constraint const& constraint) const {
  auto value = stored(name);
  if (value.is_null()) return fallback;
  if constexpr (requires {
                  typename T::allocator_type;
                  typename T::value_type;
                } &&
                !std::is_same_v<T, std::string>)
    if (!value.is_array()) value = Json::array({value});  // PEFT lets one stand for a list of one
  auto const place = fmt::format("{}: '{}'", saved_.file, name);
  FSLLM_CHECK(is_kind<T>(value), "{} = {} (another kind of value is needed). Export the adapter again.",
              place, value.dump());
  T const result = value.get<T>();
  if constexpr (!std::is_same_v<T, bool>) check_saved(place, result, constraint);
  return result;
}

template <class T>
void Arguments::agree(std::string const& name, T const& value, T const& saved) const {
  FSLLM_CHECK(!given(name) || value == saved,
              "{} = {} (the adapter of llm.adapter.init_from, {}, has {}). Remove the key or start from "
              "another adapter.",
              where(name), shown(value), saved_.dir, shown(saved));
}

template <class T>
T Arguments::get(std::string const& name, T const& fallback, std::string const& doc,
                 Constraint const& constraint) {
  names_.push_back(name);
  T const initial = start(name, fallback, constraint);
  T const value = config_.get(kArgs + "." + name, initial, doc, constraint);
  if (saved() && forgotten_.count(name) == 0) agree(name, value, initial);
  return value;
}
template bool Arguments::get(std::string const&, bool const&, std::string const&, Constraint const&);
template int64_t Arguments::get(std::string const&, int64_t const&, std::string const&, Constraint const&);
template double Arguments::get(std::string const&, double const&, std::string const&, Constraint const&);
template std::string Arguments::get(std::string const&, std::string const&, std::string const&,
                                    Constraint const&);
template std::vector<int64_t> Arguments::get(std::string const&, std::vector<int64_t> const&,
                                             std::string const&, Constraint const&);
template std::vector<std::string> Arguments::get(std::string const&, std::vector<std::string> const&,
                                                 std::string const&, Constraint const&);

std::string Arguments::word(std::string const& name, char const* fallback, std::string const& doc) {
  names_.push_back(name);
  auto const& value = stored(name);
  FSLLM_CHECK(value.is_null() || value.is_boolean() || value.is_string(),
              "{}: '{}' = {} (another kind of value is needed). Export the adapter again.", saved_.file, name,
              value.dump());
  std::string const initial = value.is_null()     ? fallback
                              : value.is_string() ? value.get<std::string>()
                                                  : value.dump();
  auto const given = config_.get(kArgs + "." + name, initial, doc);
  return lower_case(saved() ? initial : given);
}

void Arguments::assume(Json const& defaults) {
  if (saved()) return;
  for (auto const& [name, value] : defaults.items())
    if (!presets_.contains(name)) presets_[name] = value;
}

void Arguments::forget_saved(std::string const& name) {
  saved_.json.erase(name);
  forgotten_.insert(name);
}

template <class T>
void Arguments::only(std::string const& name, T const& value, std::string const& doc) {
  T const given = get(name, value, doc);
  FSLLM_CHECK(given == value, "{} = {} (not available in this version). Use {}.", where(name), shown(given),
              shown(value));
}
template void Arguments::only(std::string const&, bool const&, std::string const&);
template void Arguments::only(std::string const&, std::string const&, std::string const&);
template void Arguments::only(std::string const&, std::vector<std::string> const&, std::string const&);

void Arguments::refuse_saved(std::vector<std::string> const& keys) const {
  for (auto const& key : keys)
    FSLLM_CHECK(!saved_.json.contains(key) || is_nothing(saved_.json.at(key)),
                "{}: '{}' = {} (not available in this version). Use an adapter without it.", saved_.file, key,
                saved_.json.at(key).dump());
}

Targets Arguments::targets(std::string const& name, std::string const& doc) {
  names_.push_back(name);
  auto const key = kArgs + "." + name;
  Targets initial;
  auto const& value = stored(name);
  if (value.is_string() && value != "all-linear")
    initial.pattern = value.get<std::string>();
  else
    initial.names = start(name, std::vector<std::string>{}, {});
  Targets result = initial;
  auto const text = config_.text(key);
  if (text && !text->empty() && !config_.is_list(key)) {  // one word: all-linear, else a regular expression
    auto const word = config_.get(key, "", doc);
    result = word == "all-linear" ? Targets{{word}, ""} : Targets{{}, word};
  } else {
    auto const shown_default = initial.pattern.empty() ? initial.names : std::vector<std::string>{};
    auto const names = config_.get(key, shown_default, doc);
    if (given(name)) result = {names, ""};
  }
  config_.describe_as(key, "string or list of string");
  if (saved() && given(name) && !result.all_linear()) agree(name, sorted(result), sorted(initial));
  return result;
}

Patterns Arguments::patterns(std::string const& name, std::string const& doc, Constraint const& constraint) {
  names_.push_back(name);
  Patterns initial;
  auto const& value = stored(name);
  FSLLM_CHECK(value.is_null() || value.is_object(),
              "{}: '{}' = {} (another kind of value is needed). Export the adapter again.", saved_.file, name,
              value.dump());
  for (auto const& [pattern, number] : value.items()) {
    FSLLM_CHECK(number.is_number(), "{}: '{}' = {} (numbers are needed). Export the adapter again.",
                saved_.file, name, value.dump());
    initial.emplace_back(pattern, number.get<double>());
    check_saved(fmt::format("{}: '{}'", saved_.file, name), number.get<double>(), constraint);
  }
  auto const numbers = config_.numbers(kArgs + "." + name, doc, constraint);
  if (!given(name)) return initial;
  if (saved()) agree(name, numbers, initial);
  return numbers;
}

}  // namespace fsllm::detail
