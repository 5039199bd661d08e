// SPDX-License-Identifier: Apache-2.0
#include "value.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "fsllm/core/error.hpp"
#include "python_text.hpp"

namespace fsllm::jinja {

namespace {

thread_local int64_t* units_left = nullptr;

}  // namespace

Budget::Budget(int64_t units) {
  static thread_local int64_t left;
  left = units;
  units_left = &left;
}

Budget::~Budget() {
  units_left = nullptr;
}

void charge(size_t units) {
  if (units_left == nullptr) return;
  if (std::cmp_greater(units, *units_left)) {
    *units_left = 0;
    refuse("the template takes too many steps, or a text or list becomes too long");
  }
  *units_left -= static_cast<int64_t>(units);
}

size_t size_of(Value const& value) {
  return sizeof(Value) + 16 + (value.text() != nullptr ? value.text()->size() : 0);
}

void charge_copies(List const& list) {
  size_t units = list.size();
  for (auto const& value : list) units += size_of(value);
  charge(units);
}

void refuse(std::string const& why) {
  fail(why);
}

Value const* Dict::find(std::string_view key) const {
  charge(entries.size());
  for (auto const& [name, value] : entries)
    if (name == key) return &value;
  return nullptr;
}

void Dict::set(std::string const& key, Value value) {
  charge(entries.size() + key.size() + size_of(value));
  for (auto& [name, old] : entries)
    if (name == key) {
      old = std::move(value);
      return;
    }
  entries.emplace_back(key, std::move(value));
}

Value const* Arguments::find(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (auto const& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}

List* Value::list() const {
  auto const* const p = std::get_if<std::shared_ptr<List>>(&data);
  return p != nullptr ? p->get() : nullptr;
}

Dict* Value::dict() const {
  auto const* const p = std::get_if<std::shared_ptr<Dict>>(&data);
  return p != nullptr ? p->get() : nullptr;
}

Function* Value::function() const {
  auto const* const p = std::get_if<std::shared_ptr<Function>>(&data);
  return p != nullptr ? p->get() : nullptr;
}

Value from_json(nlohmann::ordered_json const& json) {
  if (json.is_null()) return None{};
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_array()) {
    List list;
    for (auto const& entry : json) list.push_back(from_json(entry));
    return list;
  }
  Dict dict;
  for (auto const& [key, value] : json.items()) dict.set(key, from_json(value));
  return dict;
}

bool truth(Value const& value) {
  if (value.is<Undefined>() || value.is<None>()) return false;
  if (auto const* flag = std::get_if<bool>(&value.data)) return *flag;
  if (value.is_number()) return to_double(value) != 0;
  if (value.function() != nullptr) return true;
  return length(value) > 0;
}

char const* type_name(Value const& value) {
  constexpr char const* kNames[] = {
      "undefined value", "None", "truth value", "whole number", "number", "text", "list", "dict", "function"};
  return kNames[value.data.index()];
}

int64_t to_int(Value const& value) {
  if (auto const* number = std::get_if<int64_t>(&value.data)) return *number;
  if (auto const* flag = std::get_if<bool>(&value.data)) return *flag ? 1 : 0;
  if (auto const* real = std::get_if<double>(&value.data); real != nullptr && std::abs(*real) < 9e18)
    return static_cast<int64_t>(*real);
  refuse(fmt::format("a {} where a whole number is needed", type_name(value)));
}

double to_double(Value const& value) {
  if (auto const* real = std::get_if<double>(&value.data)) return *real;
  return static_cast<double>(to_int(value));
}

bool equal(Value const& a, Value const& b) {
  charge(8);
  if (a.is_number() && b.is_number()) return to_double(a) == to_double(b);
  if (a.data.index() != b.data.index()) return false;
  if (a.text() != nullptr) {
    charge(std::min(a.text()->size(), b.text()->size()));
    return *a.text() == *b.text();
  }
  if (a.list() != nullptr)
    return std::equal(a.list()->begin(), a.list()->end(), b.list()->begin(), b.list()->end(), equal);
  if (a.dict() == nullptr) return a.function() == b.function();
  auto const& entries = a.dict()->entries;
  return entries.size() == b.dict()->entries.size() &&
         std::all_of(entries.begin(), entries.end(), [&](auto const& entry) {
           auto const* const other = b.dict()->find(entry.first);
           return other != nullptr && equal(entry.second, *other);
         });
}

bool less(Value const& a, Value const& b) {
  charge(8);
  if (a.is_number() && b.is_number()) return to_double(a) < to_double(b);
  if (a.text() != nullptr && b.text() != nullptr) {
    charge(std::min(a.text()->size(), b.text()->size()));
    return *a.text() < *b.text();
  }
  if (a.list() != nullptr && b.list() != nullptr)
    return std::lexicographical_compare(a.list()->begin(), a.list()->end(), b.list()->begin(),
                                        b.list()->end(), less);
  refuse(fmt::format("a {} is compared with a {}", type_name(a), type_name(b)));
}

int64_t length(Value const& value) {
  if (value.text() != nullptr) return count_characters(*value.text());
  if (value.list() != nullptr) return static_cast<int64_t>(value.list()->size());
  if (value.dict() != nullptr) return static_cast<int64_t>(value.dict()->entries.size());
  refuse(fmt::format("a {} has no length", type_name(value)));
}

List items_of(Value const& value) {
  if (value.list() != nullptr) {
    charge_copies(*value.list());
    return *value.list();
  }
  List items;
  if (value.is<Undefined>()) return items;
  if (value.dict() != nullptr) {
    for (auto const& [key, entry] : value.dict()->entries) {
      charge(sizeof(Value) + key.size());
      items.emplace_back(key);
    }
  } else if (value.text() != nullptr) {
    auto const all = characters(*value.text());
    charge(all.size() * sizeof(Value));
    for (auto const& character : all) items.emplace_back(std::string(character));
  } else {
    refuse(fmt::format("a {} cannot be gone through", type_name(value)));
  }
  return items;
}

namespace {

/// Python's repr of a float: shortest digits, with ".0" for whole numbers.
std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  double const size = std::abs(value);
  if (value != 0 && (size < 1e-4 || size >= 1e16)) return fmt::format("{}", value);
  char digits[64];
  auto const end = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::fixed).ptr;
  std::string text(digits, end);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

std::string quoted(std::string const& text) {
  charge(2 * text.size() + 2);
  bool const has_single = text.find('\'') != std::string::npos,
             has_double = text.find('"') != std::string::npos;
  char const quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (char const c : text) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\\' || c == quote)
      (out += '\\') += c;
    else
      out += c;
  }
  return out + quote;
}

template <class Write>
void write_joined(std::string& out, size_t count, std::string const& gap, Write const& write) {
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) out += gap;
    write(i);
  }
}

void write_json(Value const& value, int indent, size_t depth, std::string& out) {
  charge(8 + 3 * (indent < 0 ? 1 : (depth + 1) * static_cast<size_t>(indent)));
  auto const line = [&](size_t level) {
    return indent < 0 ? std::string() : "\n" + std::string(level * static_cast<size_t>(indent), ' ');
  };
  std::string const gap = indent < 0 ? ", " : "," + line(depth + 1);
  if (auto const* list = value.list()) {
    if (list->empty()) return void(out += "[]");
    out += "[" + line(depth + 1);
    write_joined(out, list->size(), gap, [&](size_t i) { write_json((*list)[i], indent, depth + 1, out); });
    out += line(depth) + "]";
  } else if (auto const* dict = value.dict()) {
    if (dict->entries.empty()) return void(out += "{}");
    out += "{" + line(depth + 1);
    write_joined(out, dict->entries.size(), gap, [&](size_t i) {
      charge(6 * dict->entries[i].first.size());
      out += nlohmann::json(dict->entries[i].first).dump() + ": ";
      write_json(dict->entries[i].second, indent, depth + 1, out);
    });
    out += line(depth) + "}";
  } else if (value.text() != nullptr) {
    charge(6 * value.text()->size());
    out += nlohmann::json(*value.text()).dump();
  } else if (value.is<None>()) {
    out += "null";
  } else if (auto const* flag = std::get_if<bool>(&value.data)) {
    out += *flag ? "true" : "false";
  } else if (value.is_number()) {
    out += to_text(value);
  } else {
    refuse(fmt::format("a {} cannot be written as JSON", type_name(value)));
  }
}

}  // namespace

std::string to_text(Value const& value) {
  if (value.text() != nullptr) {
    charge(value.text()->size());
    return *value.text();
  }
  return value.is<Undefined>() ? "" : repr(value);
}

std::string repr(Value const& value) {
  charge(8);
  if (value.text() != nullptr) return quoted(*value.text());
  if (value.is<Undefined>()) return "Undefined";
  if (value.is<None>()) return "None";
  if (auto const* flag = std::get_if<bool>(&value.data)) return *flag ? "True" : "False";
  if (auto const* number = std::get_if<int64_t>(&value.data)) return std::to_string(*number);
  if (auto const* real = std::get_if<double>(&value.data)) return float_text(*real);
  std::string out;
  if (auto const* list = value.list()) {
    write_joined(out, list->size(), ", ", [&](size_t i) { out += repr((*list)[i]); });
    charge(out.size());
    return "[" + out + "]";
  }
  if (auto const* dict = value.dict()) {
    auto const& entries = dict->entries;
    write_joined(out, entries.size(), ", ",
                 [&](size_t i) { out += quoted(entries[i].first) + ": " + repr(entries[i].second); });
    charge(out.size());
    return "{" + out + "}";
  }
  return fmt::format("<function {}>", value.function()->name);
}

std::string to_json(Value const& value, int indent) {
  std::string out;
  write_json(value, indent, 0, out);
  return out;
}

}  // namespace fsllm::jinja
