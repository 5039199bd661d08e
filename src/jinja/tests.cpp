// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/error.hpp"
#include "library.hpp"
#include "python_text.hpp"

namespace fsllm::jinja {
namespace {

using Test = bool (*)(Value const&, Arguments const&);

Value const& other(Arguments const& arguments) {
  if (arguments.positional.empty()) refuse("a test misses the value to compare with");
  return arguments.positional[0];
}

bool is_equal(Value const& value, Arguments const& arguments) {
  return equal(value, other(arguments));
}

bool is_different(Value const& value, Arguments const& arguments) {
  return !equal(value, other(arguments));
}

bool is_sequence(Value const& value, Arguments const&) {
  return value.text() != nullptr || value.list() != nullptr || value.dict() != nullptr;
}

bool is_truth(Value const& value, bool wanted) {
  auto const* const flag = std::get_if<bool>(&value.data);
  return flag != nullptr && *flag == wanted;
}

/// Python's remainder, which has the sign of the divisor.
bool leaves(Value const& value, int64_t divisor, int64_t remainder) {
  return to_int(arithmetic("%", to_int(value), divisor)) == remainder;
}

constexpr struct {
  char const* name;
  Test test;
} kTests[] = {
    {"defined", [](Value const& v, Arguments const&) { return !v.is<Undefined>(); }},
    {"undefined", [](Value const& v, Arguments const&) { return v.is<Undefined>(); }},
    {"none", [](Value const& v, Arguments const&) { return v.is<None>(); }},
    {"string", [](Value const& v, Arguments const&) { return v.text() != nullptr; }},
    {"mapping", [](Value const& v, Arguments const&) { return v.dict() != nullptr; }},
    {"iterable", [](Value const& v, Arguments const& a) { return v.is<Undefined>() || is_sequence(v, a); }},
    {"sequence", [](Value const& v, Arguments const& a) { return v.is<Undefined>() || is_sequence(v, a); }},
    {"number", [](Value const& v, Arguments const&) { return v.is_number(); }},
    {"integer", [](Value const& v, Arguments const&) { return v.is<int64_t>(); }},
    {"float", [](Value const& v, Arguments const&) { return v.is<double>(); }},
    {"boolean", [](Value const& v, Arguments const&) { return v.is<bool>(); }},
    {"true", [](Value const& v, Arguments const&) { return is_truth(v, true); }},
    {"false", [](Value const& v, Arguments const&) { return is_truth(v, false); }},
    {"callable", [](Value const& v, Arguments const&) { return v.function() != nullptr; }},
    {"lower", [](Value const& v, Arguments const&) { return to_text(v) == lower(to_text(v)); }},
    {"upper", [](Value const& v, Arguments const&) { return to_text(v) == upper(to_text(v)); }},
    {"odd", [](Value const& v, Arguments const&) { return leaves(v, 2, 1); }},
    {"even", [](Value const& v, Arguments const&) { return leaves(v, 2, 0); }},
    {"divisibleby", [](Value const& v, Arguments const& a) { return leaves(v, to_int(other(a)), 0); }},
    {"equalto", is_equal},
    {"eq", is_equal},
    {"ne", is_different},
    {"in", [](Value const& v, Arguments const& a) { return contains(other(a), v); }},
    {"lt", [](Value const& v, Arguments const& a) { return less(v, other(a)); }},
    {"gt", [](Value const& v, Arguments const& a) { return less(other(a), v); }},
    {"le", [](Value const& v, Arguments const& a) { return !less(other(a), v); }},
    {"ge", [](Value const& v, Arguments const& a) { return !less(v, other(a)); }},
};

}  // namespace

bool apply_test(std::string const& name, Value const& value, Arguments const& arguments) {
  if (name == "==" || name == "!=") return equal(value, other(arguments)) == (name == "==");
  for (auto const& [known, test] : kTests)
    if (name == known) return test(value, arguments);
  refuse(fmt::format("the test '{}' is outside of the part of Jinja known here", name));
}

}  // namespace fsllm::jinja
