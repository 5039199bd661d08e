// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "value.hpp"

namespace fsllm::jinja {

/// Filters, tests, and methods of texts and dicts: a row each in the tables of their files. Unknown names are
/// Errors.
Value apply_filter(std::string const& name, Value const& value, Arguments const& arguments);
bool apply_test(std::string const& name, Value const& value, Arguments const& arguments);
/// `value.name` as a bound method, or undefined where there is none.
Value method(Value const& value, std::string const& name);
/// `value.name`, by attribute and then by key.
Value attribute(Value const& value, std::string const& name);
/// `value[key]`.
Value subscript(Value const& value, Value const& key);
bool holds(List const& list, Value const& needle);
/// `needle in value`.
bool contains(Value const& value, Value const& needle);
/// `value[begin:end:step]`; None where left out.
Value slice(Value const& value, Value const& begin, Value const& end, Value const& step);
/// `a op b` for + - * / // % ** ~.
Value arithmetic(std::string const& op, Value const& a, Value const& b);

}  // namespace fsllm::jinja
