// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "fsllm/core/error.hpp"
#include "library.hpp"
#include "python_text.hpp"

namespace fsllm::jinja {
namespace {

using Text = std::string const&;

std::string_view text_argument(Arguments const& arguments, size_t index, char const* name) {
  auto const* const value = arguments.find(index, name);
  if (value == nullptr || value->text() == nullptr)
    refuse(fmt::format("argument {} must be a text", index + 1));
  return *value->text();
}

int64_t number_argument(Arguments const& arguments, size_t index, char const* name, int64_t otherwise) {
  auto const* const value = arguments.find(index, name);
  return value == nullptr ? otherwise : to_int(*value);
}

template <Side side>
Value strip_method(Text text, Arguments const& arguments) {
  auto const* const set = arguments.find(0, "chars");
  if (set == nullptr || set->is<None>()) return std::string(strip(text, side));
  auto const characters = text_argument(arguments, 0, "chars");
  return std::string(strip(text, side, &characters));
}

List texts(std::vector<std::string> const& parts) {
  List list;
  for (auto const& part : parts) list.emplace_back(part);
  return list;
}

Value split_method(Text text, Arguments const& arguments) {
  auto const* const given = arguments.find(0, "sep");
  int64_t const most = number_argument(arguments, 1, "maxsplit", -1);
  if (given == nullptr || given->is<None>()) return texts(split(text, nullptr, most));
  auto const separator = text_argument(arguments, 0, "sep");
  return texts(split(text, &separator, most));
}

/// startswith and endswith take a text or several.
template <bool (*matches)(std::string_view, std::string_view)>
Value affix_method(Text text, Arguments const& arguments) {
  auto const* const given = arguments.find(0, "prefix");
  if (given != nullptr && given->list() != nullptr)
    return std::any_of(given->list()->begin(), given->list()->end(), [&](Value const& affix) {
      return affix.text() != nullptr && matches(text, *affix.text());
    });
  return matches(text, text_argument(arguments, 0, "prefix"));
}

bool starts(std::string_view text, std::string_view affix) {
  return text.starts_with(affix);
}

bool ends(std::string_view text, std::string_view affix) {
  return text.ends_with(affix);
}

Value find_method(Text text, Arguments const& arguments) {
  size_t const at = find_text(text, text_argument(arguments, 0, "sub"));
  return at == std::string::npos ? int64_t{-1} : count_characters(std::string_view(text).substr(0, at));
}

Value count_method(Text text, Arguments const& arguments) {
  auto const part = text_argument(arguments, 0, "sub");
  return static_cast<int64_t>(split(text, &part, -1).size()) - 1;
}

Value join_method(Text text, Arguments const& arguments) {
  std::string out;
  auto const* const list = arguments.find(0, "iterable");
  if (list == nullptr) refuse("join() needs a list");
  bool first = true;
  for (auto const& item : items_of(*list)) {
    if (item.text() == nullptr) refuse(fmt::format("join() of a {}", type_name(item)));
    charge(text.size() + item.text()->size());
    if (!first) out += text;
    out += *item.text();
    first = false;
  }
  return out;
}

Value replace_method(Text text, Arguments const& arguments) {
  return replace(text, text_argument(arguments, 0, "old"), text_argument(arguments, 1, "new"),
                 number_argument(arguments, 2, "count", -1));
}

Value removeprefix_method(Text text, Arguments const& arguments) {
  auto const part = text_argument(arguments, 0, "prefix");
  return text.starts_with(part) ? text.substr(part.size()) : text;
}

Value removesuffix_method(Text text, Arguments const& arguments) {
  auto const part = text_argument(arguments, 0, "suffix");
  return text.ends_with(part) ? text.substr(0, text.size() - part.size()) : text;
}

template <class T>
struct Method {
  char const* name;
  Value (*call)(T const&, Arguments const&);
};

constexpr Method<std::string> kTextMethods[] = {
    {"strip", strip_method<Side::both>},
    {"lstrip", strip_method<Side::left>},
    {"rstrip", strip_method<Side::right>},
    {"split", split_method},
    {"rsplit",
     [](Text text, Arguments const& a) -> Value {
       return texts(rsplit(text, text_argument(a, 0, "sep"), number_argument(a, 1, "maxsplit", -1)));
     }},
    {"splitlines", [](Text text, Arguments const&) -> Value { return texts(split_lines(text)); }},
    {"startswith", affix_method<starts>},
    {"endswith", affix_method<ends>},
    {"find", find_method},
    {"count", count_method},
    {"join", join_method},
    {"replace", replace_method},
    {"removeprefix", removeprefix_method},
    {"removesuffix", removesuffix_method},
    {"upper", [](Text text, Arguments const&) -> Value { return upper(text); }},
    {"lower", [](Text text, Arguments const&) -> Value { return lower(text); }},
    {"title", [](Text text, Arguments const&) -> Value { return title(text); }},
    {"capitalize", [](Text text, Arguments const&) -> Value { return capitalize(text); }},
    {"isdigit",
     [](Text text, Arguments const&) -> Value {
       return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
     }},
};

Value get_method(Dict const& dict, Arguments const& arguments) {
  auto const* const found = dict.find(text_argument(arguments, 0, "key"));
  if (found != nullptr) return *found;
  auto const* const otherwise = arguments.find(1, "default");
  return otherwise != nullptr ? *otherwise : Value(None{});
}

Value items_method(Dict const& dict, Arguments const&) {
  List items;
  for (auto const& [key, value] : dict.entries) {
    charge(3 * sizeof(Value) + key.size() + size_of(value));
    items.push_back(List{key, value});
  }
  return items;
}

Value keys_method(Dict const& dict, Arguments const&) {
  List keys;
  for (auto const& entry : dict.entries) {
    charge(sizeof(Value) + entry.first.size());
    keys.emplace_back(entry.first);
  }
  return keys;
}

Value values_method(Dict const& dict, Arguments const&) {
  List values;
  for (auto const& entry : dict.entries) {
    charge(size_of(entry.second));
    values.push_back(entry.second);
  }
  return values;
}

constexpr Method<Dict> kDictMethods[] = {
    {"get", get_method}, {"items", items_method}, {"keys", keys_method}, {"values", values_method}};

}  // namespace

Value method(Value const& value, std::string const& name) {
  charge(size_of(value));
  for (auto const& entry : kTextMethods)
    if (value.text() != nullptr && name == entry.name)
      return Function{name,
                      [value, call = entry.call](Arguments const& a) { return call(*value.text(), a); }};
  for (auto const& entry : kDictMethods)
    if (value.dict() != nullptr && name == entry.name)
      return Function{name,
                      [value, call = entry.call](Arguments const& a) { return call(*value.dict(), a); }};
  return Undefined{fmt::format("'{}' of a {}", name, type_name(value))};
}

}  // namespace fsllm::jinja
