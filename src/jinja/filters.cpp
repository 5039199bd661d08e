// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "fsllm/core/error.hpp"
#include "library.hpp"
#include "python_text.hpp"

namespace fsllm::jinja {
namespace {

/// For arguments that are given by name alone.
constexpr size_t kByName = SIZE_MAX;

using Filter = Value (*)(Value const&, Arguments const&);

Value const& needed(Arguments const& arguments, size_t index, char const* name) {
  auto const* const value = arguments.find(index, name);
  if (value == nullptr) refuse(fmt::format("argument {} ({}) is missing", index + 1, name));
  return *value;
}

/// Everything after the first `count` positional arguments.
Arguments without_first(Arguments const& arguments, size_t count) {
  charge_copies(arguments.positional);
  for (auto const& [name, value] : arguments.named) charge(name.size() + size_of(value));
  auto rest = arguments;
  rest.positional.erase(
      rest.positional.begin(),
      rest.positional.begin() + static_cast<ptrdiff_t>(std::min(count, rest.positional.size())));
  return rest;
}

/// "a.b" as the attribute b of the attribute a.
Value path_of(Value value, Value const& path) {
  if (path.text() == nullptr) return subscript(value, path);
  std::string_view const dot = ".";
  for (auto const& name : split(*path.text(), &dot, -1)) value = subscript(value, name);
  return value;
}

Value trim(Value const& value, Arguments const& arguments) {
  auto const* const set = arguments.find(0, "chars");
  std::string_view const chars = set != nullptr && set->text() != nullptr ? *set->text() : std::string_view();
  return std::string(
      strip(to_text(value), Side::both, set != nullptr && set->text() != nullptr ? &chars : nullptr));
}

Value tojson(Value const& value, Arguments const& arguments) {
  auto const* const indent = arguments.find(kByName, "indent");
  for (auto const& [name, given] : arguments.named)
    if (name != "indent" && name != "ensure_ascii")
      refuse(fmt::format("tojson({}=...) is not known here", name));
  return to_json(value, indent == nullptr || indent->is<None>()
                            ? -1
                            : static_cast<int>(std::clamp<int64_t>(to_int(*indent), 0, 64)));
}

Value join(Value const& value, Arguments const& arguments) {
  auto const* const gap = arguments.find(0, "d");
  auto const* const path = arguments.find(1, "attribute");
  std::string out;
  bool first = true;
  for (auto const& item : items_of(value)) {
    if (!first && gap != nullptr) out += to_text(*gap);  // texts charge for themselves
    out += to_text(path != nullptr ? path_of(item, *path) : item);
    first = false;
  }
  return out;
}

Value first(Value const& value, Arguments const&) {
  auto const items = items_of(value);
  return items.empty() ? Value(Undefined{"the first of nothing"}) : items.front();
}

Value last(Value const& value, Arguments const&) {
  auto const items = items_of(value);
  return items.empty() ? Value(Undefined{"the last of nothing"}) : items.back();
}

Value defaulted(Value const& value, Arguments const& arguments) {
  auto const* const otherwise = arguments.find(0, "default_value");
  auto const* const for_false = arguments.find(1, "boolean");
  bool const use = value.is<Undefined>() || (for_false != nullptr && truth(*for_false) && !truth(value));
  return !use ? value : otherwise != nullptr ? *otherwise : Value("");
}

template <bool wanted>
Value select_by(List const& items, Arguments const& tests, Value const* path) {
  auto const* const name = tests.find(0, "");
  if (name != nullptr && name->text() == nullptr) refuse("the name of a test must be a text");
  auto const rest = without_first(tests, 1);
  List chosen;
  for (auto const& item : items) {
    auto const value = path != nullptr ? path_of(item, *path) : item;
    if ((name == nullptr ? truth(value) : apply_test(*name->text(), value, rest)) == wanted)
      chosen.push_back(item);
  }
  return chosen;
}

template <bool wanted>
Value select_attribute(Value const& value, Arguments const& arguments) {
  auto const path = needed(arguments, 0, "attribute");
  return select_by<wanted>(items_of(value), without_first(arguments, 1), &path);
}

template <bool wanted>
Value select(Value const& value, Arguments const& arguments) {
  return select_by<wanted>(items_of(value), arguments, nullptr);
}

Value map(Value const& value, Arguments const& arguments) {
  List out;
  auto const* const path = arguments.find(kByName, "attribute");
  auto const* const otherwise = arguments.find(kByName, "default");
  for (auto const& item : items_of(value)) {
    if (path != nullptr) {
      auto mapped = path_of(item, *path);
      out.push_back(mapped.is<Undefined>() && otherwise != nullptr ? *otherwise : mapped);
    } else {
      out.push_back(apply_filter(to_text(needed(arguments, 0, "name")), item, without_first(arguments, 1)));
    }
  }
  return out;
}

Value list(Value const& value, Arguments const&) {
  return items_of(value);
}

Value reverse(Value const& value, Arguments const&) {
  auto items = items_of(value);
  std::reverse(items.begin(), items.end());
  return value.text() != nullptr ? join(items, {}) : Value(items);
}

Value items(Value const& value, Arguments const& arguments) {
  if (value.is<Undefined>()) return List{};
  if (value.dict() == nullptr) refuse(fmt::format("items of a {}", type_name(value)));
  return method(value, "items").function()->call(arguments);
}

Value dictsort(Value const& value, Arguments const&) {
  auto sorted = items(value, {});
  std::stable_sort(sorted.list()->begin(), sorted.list()->end(), [](Value const& a, Value const& b) {
    return lower(*a.list()->front().text()) < lower(*b.list()->front().text());
  });
  return sorted;
}

Value sort(Value const& value, Arguments const& arguments) {
  auto sorted = items_of(value);
  auto const* const path = arguments.find(2, "attribute");
  auto const* const backwards = arguments.find(0, "reverse");
  auto const key = [&](Value const& item) {
    auto const found = path != nullptr ? path_of(item, *path) : item;
    return found.text() != nullptr ? Value(lower(*found.text())) : found;
  };
  bool const falling = backwards != nullptr && truth(*backwards);
  std::stable_sort(sorted.begin(), sorted.end(), [&](Value const& a, Value const& b) {
    return falling ? less(key(b), key(a)) : less(key(a), key(b));
  });
  return sorted;
}

Value unique(Value const& value, Arguments const&) {
  auto const items = items_of(value);
  List out;
  for (auto const& item : items)
    if (!holds(out, item)) {
      charge(size_of(item));
      out.push_back(item);
    }
  return out;
}

Value to_whole(Value const& value, Arguments const&) {
  if (value.is_number()) return to_int(value);
  try {
    return static_cast<int64_t>(std::stoll(to_text(value)));
  } catch (std::exception const&) {
    return int64_t{0};
  }
}

Value to_real(Value const& value, Arguments const&) {
  if (value.is_number()) return to_double(value);
  try {
    return std::stod(to_text(value));
  } catch (std::exception const&) {
    return 0.0;
  }
}

/// Jinja's title filter, whose words begin after blanks and opening brackets (str.title has others).
Value titled(Value const& value, Arguments const&) {
  std::string const text = to_text(value);
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t const end = std::min(text.find_first_of("- \t\r\n\f\v({[<", at), text.size());
    out += capitalize(std::string_view(text).substr(at, end - at));
    if (end < text.size()) out += text[end];
    at = end + 1;
  }
  return out;
}

Value absolute(Value const& value, Arguments const&) {
  if (value.is<double>()) return std::abs(to_double(value));
  int64_t const number = to_int(value);
  return number < 0 ? arithmetic("-", int64_t{0}, number) : Value(number);
}

Value replaced(Value const& value, Arguments const& arguments) {
  auto const* const count = arguments.find(2, "count");
  return replace(to_text(value), to_text(needed(arguments, 0, "old")), to_text(needed(arguments, 1, "new")),
                 count == nullptr || count->is<None>() ? -1 : to_int(*count));
}

Value indent(Value const& value, Arguments const& arguments) {
  auto const* const width = arguments.find(0, "width");
  auto const* const at_first = arguments.find(1, "first");
  std::string const space =
      width == nullptr ? "    "
      : width->text() != nullptr
          ? *width->text()
          : std::string(static_cast<size_t>(std::clamp<int64_t>(to_int(*width), 0, 1000)), ' ');
  std::string out;
  for (auto const& line : split_lines(to_text(value))) {
    charge(space.size() + line.size() + 1);
    bool const is_first = out.empty();
    if (!is_first) out += '\n';
    if ((!is_first || (at_first != nullptr && truth(*at_first))) && !line.empty()) out += space;
    out += line;
  }
  return to_text(value).ends_with('\n') ? out + "\n" : out;
}

Value count(Value const& value, Arguments const&) {
  if (value.is<Undefined>()) return int64_t{0};
  return length(value);
}

constexpr struct {
  char const* name;
  Filter filter;
} kFilters[] = {
    {"trim", trim},
    {"tojson", tojson},
    {"length", count},
    {"count", count},
    {"join", join},
    {"first", first},
    {"last", last},
    {"default", defaulted},
    {"d", defaulted},
    {"selectattr", select_attribute<true>},
    {"rejectattr", select_attribute<false>},
    {"select", select<true>},
    {"reject", select<false>},
    {"map", map},
    {"list", list},
    {"reverse", reverse},
    {"items", items},
    {"dictsort", dictsort},
    {"sort", sort},
    {"unique", unique},
    {"string", [](Value const& v, Arguments const&) -> Value { return to_text(v); }},
    {"safe", [](Value const& v, Arguments const&) -> Value { return v; }},
    {"upper", [](Value const& v, Arguments const&) -> Value { return upper(to_text(v)); }},
    {"lower", [](Value const& v, Arguments const&) -> Value { return lower(to_text(v)); }},
    {"title", titled},
    {"capitalize", [](Value const& v, Arguments const&) -> Value { return capitalize(to_text(v)); }},
    {"replace", replaced},
    {"indent", indent},
    {"int", to_whole},
    {"float", to_real},
    {"abs", absolute},
};

}  // namespace

Value apply_filter(std::string const& name, Value const& value, Arguments const& arguments) {
  for (auto const& [known, filter] : kFilters)
    if (name == known) return filter(value, arguments);
  refuse(fmt::format("the filter '{}' is outside of the part of Jinja known here", name));
}

}  // namespace fsllm::jinja
