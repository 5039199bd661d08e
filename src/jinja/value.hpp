// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace fsllm::jinja {

struct Value;
using List = std::vector<Value>;

/// Keys are texts, in the order in which they were set. A namespace is one that `set ns.x` may change.
struct Dict {
  std::vector<std::pair<std::string, Value>> entries;
  bool is_namespace = false;
  Value const* find(std::string_view key) const;
  void set(std::string const& key, Value value);
};

/// What a call gives to a function, filter or test.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  /// By position or name; null where it is not given.
  Value const* find(size_t index, std::string_view name) const;
};

struct Function {
  std::string name;
  std::function<Value(Arguments const&)> call;
};

struct None {};
/// What a name that nobody set stands for; `what` is told when it is used.
struct Undefined {
  std::string what;
};

/// A Python value as templates see it. Lists, dicts and functions are shared, as in Python.
struct Value {
  std::variant<Undefined, None, bool, int64_t, double, std::string, std::shared_ptr<List>,
               std::shared_ptr<Dict>, std::shared_ptr<Function>>
      data;

  Value() = default;
  template <class T>
  Value(T value) : data(std::move(value)) {}  // NOLINT: values are made of what they hold
  Value(char const* text) : data(std::string(text)) {}
  Value(List list) : data(std::make_shared<List>(std::move(list))) {}
  Value(Dict dict) : data(std::make_shared<Dict>(std::move(dict))) {}
  Value(Function function) : data(std::make_shared<Function>(std::move(function))) {}

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(data);
  }
  bool is_number() const { return is<int64_t>() || is<double>() || is<bool>(); }
  std::string const* text() const { return std::get_if<std::string>(&data); }
  List* list() const;
  Dict* dict() const;
  Function* function() const;
};

Value from_json(nlohmann::ordered_json const& json);

/// Python's bool(), str(), repr(), type name, == and <.
bool truth(Value const& value);
std::string to_text(Value const& value);
std::string repr(Value const& value);
char const* type_name(Value const& value);
bool equal(Value const& a, Value const& b);
bool less(Value const& a, Value const& b);
/// int() of a truth value or number.
int64_t to_int(Value const& value);
double to_double(Value const& value);
/// json.dumps with ensure_ascii=False, as transformers' `tojson` does it; `indent` < 0: on one line.
std::string to_json(Value const& value, int indent);
/// len(), and what a for loop goes through: entries, keys, or characters.
int64_t length(Value const& value);
List items_of(Value const& value);

/// What running templates may do in all: units of about a byte that is made, copied or looked at. Everything
/// whose work grows with its operands charges it before it begins, so that time and memory are bounded.
class Budget {
 public:
  explicit Budget(int64_t units);
  ~Budget();
  Budget(Budget const&) = delete;
  Budget& operator=(Budget const&) = delete;
};
/// Takes from the budget of this thread (none: no bound); an Error where it is used up.
void charge(size_t units);
/// What a copy of the value takes.
size_t size_of(Value const& value);
void charge_copies(List const& list);

/// Fails with "why"; the interpreter adds the template's name and line.
[[noreturn]] void refuse(std::string const& why);

}  // namespace fsllm::jinja
