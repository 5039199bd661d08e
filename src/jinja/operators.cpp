// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "fsllm/core/error.hpp"
#include "library.hpp"
#include "python_text.hpp"

namespace fsllm::jinja {
namespace {

constexpr size_t kLongest = size_t{1} << 26;

/// Python's index: from the end where negative.
int64_t from_end(int64_t index, int64_t size) {
  return index < 0 ? index + size : index;
}

std::vector<int64_t> slice_positions(int64_t size, Value const& begin, Value const& end, Value const& step) {
  int64_t const by = step.is<None>() ? 1 : std::clamp(to_int(step), -size - 1, size + 1);
  if (step.is<None>() ? false : to_int(step) == 0) refuse("a slice with step 0");
  charge(static_cast<size_t>(size) * sizeof(int64_t));
  auto const bound = [&](Value const& value, int64_t none) {
    if (value.is<None>()) return none;
    return std::clamp<int64_t>(from_end(to_int(value), size), by > 0 ? 0 : -1, by > 0 ? size : size - 1);
  };
  int64_t const first = bound(begin, by > 0 ? 0 : size - 1), last = bound(end, by > 0 ? size : -1);
  std::vector<int64_t> positions;
  for (int64_t i = first; by > 0 ? i < last : i > last; i += by) positions.push_back(i);
  return positions;
}

Value repeated(std::string const& text, int64_t times) {
  std::string out;
  if (times > 0 && text.size() * static_cast<uint64_t>(std::min<int64_t>(times, 1 << 30)) > kLongest)
    refuse("a text is repeated too often");
  if (times > 0) charge(text.size() * static_cast<size_t>(std::min<int64_t>(times, 1 << 30)));
  if (text.empty()) return out;
  for (int64_t i = 0; i < times; ++i) out += text;
  return out;
}

Value whole(std::string const& op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &result);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &result);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &result);
  if (op == "//" || op == "%") {
    if (b == 0) refuse("a division by zero");
    if (b == -1) return op == "%" ? Value(int64_t{0}) : whole("-", 0, a);
    bool const below = a % b != 0 && (a % b < 0) != (b < 0);
    result = op == "%" ? a % b + (below ? b : 0) : a / b - (below ? 1 : 0);
  }
  if (overflow) refuse("a number becomes too large");
  return result;
}

Value real(std::string const& op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") return std::pow(a, b);
  if (b == 0) refuse("a division by zero");
  if (op == "/") return a / b;
  return op == "//" ? std::floor(a / b) : a - std::floor(a / b) * b;
}

}  // namespace

Value arithmetic(std::string const& op, Value const& a, Value const& b) {
  if (op == "~") return to_text(a) + to_text(b);
  if (op == "+" && a.text() != nullptr && b.text() != nullptr) {
    charge(a.text()->size() + b.text()->size());
    return *a.text() + *b.text();
  }
  if (op == "+" && a.list() != nullptr && b.list() != nullptr) {
    charge_copies(*a.list());
    charge_copies(*b.list());
    auto joined = *a.list();
    joined.insert(joined.end(), b.list()->begin(), b.list()->end());
    return joined;
  }
  if (op == "*" && a.text() != nullptr && b.is_number()) return repeated(*a.text(), to_int(b));
  if (op == "*" && b.text() != nullptr && a.is_number()) return repeated(*b.text(), to_int(a));
  for (auto const* value : {&a, &b})
    if (auto const* undefined = std::get_if<Undefined>(&value->data)) refuse(undefined->what);
  if (!a.is_number() || !b.is_number()) refuse(fmt::format("a {} {} a {}", type_name(a), op, type_name(b)));
  bool const is_real = a.is<double>() || b.is<double>() || op == "/";
  if (op == "**" && !is_real) return to_int(Value(std::pow(to_double(a), to_double(b))));
  return is_real ? real(op, to_double(a), to_double(b)) : whole(op, to_int(a), to_int(b));
}

bool holds(List const& list, Value const& needle) {
  for (auto const& item : list)
    if (equal(item, needle)) return true;
  return false;
}

bool contains(Value const& value, Value const& needle) {
  if (value.text() != nullptr) {
    if (needle.text() == nullptr) refuse(fmt::format("a {} is looked for in a text", type_name(needle)));
    return find_text(*value.text(), *needle.text()) != std::string::npos;
  }
  if (value.dict() != nullptr)
    return needle.text() != nullptr && value.dict()->find(*needle.text()) != nullptr;
  return value.list() != nullptr ? holds(*value.list(), needle) : holds(items_of(value), needle);
}

Value subscript(Value const& value, Value const& key) {
  if (auto const* undefined = std::get_if<Undefined>(&value.data)) refuse(undefined->what);
  if (value.dict() != nullptr && key.text() != nullptr) {
    auto const* const found = value.dict()->find(*key.text());
    if (found != nullptr) return *found;
  }
  if (key.text() != nullptr) {
    auto bound = method(value, *key.text());
    return bound.is<Undefined>()
               ? Value(Undefined{fmt::format("'{}' is missing in a {}", *key.text(), type_name(value))})
               : bound;
  }
  if (!key.is_number()) return Undefined{fmt::format("a {} is no index", type_name(key))};
  int64_t const size = value.dict() != nullptr ? 0 : length(value), at = from_end(to_int(key), size);
  if (at < 0 || at >= size)
    return Undefined{fmt::format("entry {} of a {} of {}", to_int(key), type_name(value), size)};
  if (value.list() != nullptr) return (*value.list())[static_cast<size_t>(at)];
  return std::string(characters(*value.text())[static_cast<size_t>(at)]);
}

Value attribute(Value const& value, std::string const& name) {
  if (auto const* undefined = std::get_if<Undefined>(&value.data)) refuse(undefined->what);
  auto bound = value.dict() != nullptr && value.dict()->is_namespace ? Value() : method(value, name);
  return bound.is<Undefined>() ? subscript(value, name) : bound;
}

Value slice(Value const& value, Value const& begin, Value const& end, Value const& step) {
  if (auto const* undefined = std::get_if<Undefined>(&value.data)) refuse(undefined->what);
  if (value.list() != nullptr) {
    List part;
    for (int64_t const i : slice_positions(length(value), begin, end, step)) {
      charge(size_of((*value.list())[static_cast<size_t>(i)]));
      part.push_back((*value.list())[static_cast<size_t>(i)]);
    }
    return part;
  }
  if (value.text() == nullptr) refuse(fmt::format("a slice of a {}", type_name(value)));
  auto const all = characters(*value.text());
  std::string part;
  for (int64_t const i : slice_positions(static_cast<int64_t>(all.size()), begin, end, step))
    part += all[static_cast<size_t>(i)];
  return part;
}

}  // namespace fsllm::jinja
