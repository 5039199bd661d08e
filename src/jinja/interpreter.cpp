// SPDX-License-Identifier: Apache-2.0
#include "interpreter.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "library.hpp"

namespace fsllm::jinja {
namespace {

constexpr int64_t kMostUnits = int64_t{1} << 28;
constexpr int64_t kMostSteps = 2'000'000;
constexpr size_t kLongestOutput = size_t{1} << 28;
constexpr int kDeepestCall = 300, kDeepestValue = 100;
constexpr int64_t kLongestRange = 1'000'000;

Value make_namespace(Arguments const& arguments) {
  Dict dict;
  for (auto const& [key, value] : arguments.named) dict.set(key, value);
  dict.is_namespace = true;
  return dict;
}

Value make_dict(Arguments const& arguments) {
  Dict dict;
  for (auto const& [key, value] : arguments.named) dict.set(key, value);
  return dict;
}

Value range(Arguments const& arguments) {
  auto const& given = arguments.positional;
  if (given.empty() || given.size() > 3) refuse("range() takes one to three numbers");
  int64_t const begin = given.size() > 1 ? to_int(given[0]) : 0,
                end = to_int(given[given.size() > 1 ? 1 : 0]);
  int64_t const by = given.size() > 2 ? to_int(given[2]) : 1;
  auto const is_small = [](int64_t number) { return number >= -kLongestRange && number <= kLongestRange; };
  if (by == 0 || !is_small(begin) || !is_small(end)) refuse("range() is too long");
  int64_t const stride = std::clamp(by, -2 * kLongestRange - 1, 2 * kLongestRange + 1);
  List list;
  for (int64_t i = begin; by > 0 ? i < end : i > end; i += stride) {
    charge(2 * sizeof(Value));
    list.emplace_back(i);
  }
  return list;
}

/// datetime.now().strftime(format) of transformers, on a day that is always the same: rows must not depend on
/// the day on which they are made.
Value strftime_now(std::tm const& date, Arguments const& arguments) {
  auto const* const format = arguments.find(0, "format");
  if (format == nullptr || format->text() == nullptr) refuse("strftime_now() needs a format");
  char text[4096];
  auto const written = std::strftime(text, sizeof text, (*format->text() + ".").c_str(), &date);
  if (written == 0) refuse("strftime_now() writes too much");
  return std::string(text, written - 1);
}

Value raise(Arguments const& arguments) {
  refuse("the template refuses: " + (arguments.positional.empty() ? "" : to_text(arguments.positional[0])));
}

/// The variable `loop` of entry i.
Value loop_variable(List const& items, size_t i) {
  auto const count = static_cast<int64_t>(items.size()), index = static_cast<int64_t>(i);
  Dict loop;
  loop.set("index", index + 1);
  loop.set("index0", index);
  loop.set("revindex", count - index);
  loop.set("revindex0", count - index - 1);
  loop.set("first", i == 0);
  loop.set("last", i + 1 == items.size());
  loop.set("length", count);
  loop.set("previtem", i > 0 ? items[i - 1] : Value(Undefined{"loop.previtem of the first entry"}));
  loop.set("nextitem",
           i + 1 < items.size() ? items[i + 1] : Value(Undefined{"loop.nextitem of the last entry"}));
  return loop;
}

struct Deeper {
  explicit Deeper(int& depth) : depth_(depth) {
    if (++depth_ > kDeepestCall) refuse("the template calls itself too often");
  }
  ~Deeper() { --depth_; }
  int& depth_;
};

}  // namespace

Interpreter::Interpreter(std::string const& name, std::tm const& date, Dict const& variables) : name_(name) {
  globals_.names["strftime_now"] =
      Function{"strftime_now", [date](Arguments const& arguments) { return strftime_now(date, arguments); }};
  globals_.names["namespace"] = Function{"namespace", make_namespace};
  globals_.names["dict"] = Function{"dict", make_dict};
  globals_.names["range"] = Function{"range", range};
  globals_.names["raise_exception"] = Function{"raise_exception", raise};
  for (auto const& [key, value] : variables.entries) globals_.names[key] = value;
}

void Interpreter::run(Block const& block) {
  Budget const budget(kMostUnits);
  try {
    run_block(block, globals_);
  } catch (Error const& error) {
    refuse_at(line_, error.what());
  }
}

void Interpreter::refuse_at(int line, std::string const& why) const {
  fail(fmt::format("{}:{}: {}", name_, line, why));
}

void Interpreter::step(int line) {
  line_ = line;
  charge(64);
  if (++steps_ > kMostSteps) refuse("the template takes too many steps");
  if (output_.size() > kLongestOutput) refuse("the template writes too much");
}

Interpreter::Flow Interpreter::run_block(Block const& block, Scope& scope) {
  Deeper const deeper(depth_);
  for (auto const& statement : block)
    if (auto const flow = run_statement(statement, scope); flow != Flow::on) return flow;
  return Flow::on;
}

Interpreter::Flow Interpreter::run_statement(Statement const& s, Scope& scope) {
  step(s.line);
  switch (s.kind) {
    case StatementKind::text:
      charge(s.text.size());
      output_ += s.text;
      break;
    case StatementKind::output:
      output_ += to_text(evaluate(*s.expression, scope));
      break;
    case StatementKind::condition:
      return run_block(truth(evaluate(*s.expression, scope)) ? s.body : s.otherwise, scope);
    case StatementKind::loop:
      run_loop(s, scope);
      break;
    case StatementKind::assignment:
      s.text.empty() ? bind(s, evaluate(*s.expression, scope), scope)
                     : set_attribute(s, evaluate(*s.expression, scope), scope);
      break;
    case StatementKind::capture:
      s.text.empty() ? bind(s, captured(s.body, scope), scope)
                     : set_attribute(s, captured(s.body, scope), scope);
      break;
    case StatementKind::macro:
      scope.names[s.text] = macro(s);
      break;
    case StatementKind::filtered: {
      Scope inner{{{"", captured(s.body, scope)}}, &scope};
      output_ += to_text(evaluate(*s.expression, inner));
      break;
    }
    case StatementKind::generation: {
      size_t const begin = output_.size();
      auto const flow = run_block(s.body, scope);
      if (output_.size() > begin) generated_.emplace_back(begin, output_.size());
      return flow;
    }
    case StatementKind::leave:
      return Flow::leave;
    case StatementKind::next:
      return Flow::next;
  }
  return Flow::on;
}

void Interpreter::run_loop(Statement const& loop, Scope& scope) {
  auto items = items_of(evaluate(*loop.expression, scope));
  if (loop.filter) {
    List kept;
    for (auto const& item : items) {
      step(loop.line);
      Scope inner{{}, &scope};
      bind(loop, item, inner);
      if (truth(evaluate(*loop.filter, inner))) kept.push_back(item);
    }
    items = std::move(kept);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    step(loop.line);
    charge(16 * sizeof(Value) + size_of(items[i]));  // the loop variable
    Scope inner{{{"loop", loop_variable(items, i)}}, &scope};
    bind(loop, items[i], inner);
    if (run_block(loop.body, inner) == Flow::leave) break;
  }
  if (items.empty()) run_block(loop.otherwise, scope);
}

/// A value that holds itself many times over, or is nested deeply, would take for ever to print and to free.
void Interpreter::check_nesting(Value const& value, int depth) {
  if (depth > kDeepestValue) refuse("a value is nested too deeply");
  step(line_);
  if (value.list() != nullptr)
    for (auto const& entry : *value.list()) check_nesting(entry, depth + 1);
  if (value.dict() != nullptr)
    for (auto const& entry : value.dict()->entries) check_nesting(entry.second, depth + 1);
}

void Interpreter::bind(Statement const& statement, Value const& value, Scope& scope) {
  check_nesting(value, 0);
  auto const& names = statement.names;
  charge(size_of(value));
  if (names.size() == 1) {
    scope.names[names[0]] = value;
    return;
  }
  auto const parts = items_of(value);
  if (parts.size() != names.size()) refuse(fmt::format("{} values for {} names", parts.size(), names.size()));
  for (size_t i = 0; i < names.size(); ++i) scope.names[names[i]] = parts[i];
}

void Interpreter::set_attribute(Statement const& statement, Value value, Scope& scope) {
  auto const target = lookup(statement.names[0], scope);
  if (target.dict() == nullptr || !target.dict()->is_namespace)
    refuse(fmt::format("'{}' is no namespace() (only those have attributes to set)", statement.names[0]));
  target.dict()->set(statement.text, std::move(value));
  check_nesting(target, 0);
}

Value Interpreter::captured(Block const& block, Scope& scope) {
  auto before = std::move(output_);
  auto const generated = generated_.size();
  output_.clear();
  Scope inner{{}, &scope};
  run_block(block, inner);
  auto text = std::move(output_);
  output_ = std::move(before);
  generated_.resize(generated);
  return text;
}

Value Interpreter::macro(Statement const& statement) {
  return Function{statement.text,
                  [this, &statement](Arguments const& a) { return call_macro(statement, a); }};
}

Value Interpreter::call_macro(Statement const& statement, Arguments const& arguments) {
  Deeper const deeper(depth_);
  auto const& names = statement.names;
  if (arguments.positional.size() > names.size())
    refuse(fmt::format("too many arguments for the macro '{}'", statement.text));
  Scope scope{{}, &globals_};
  size_t const required = names.size() - statement.defaults.size();
  for (size_t i = 0; i < names.size(); ++i) {
    auto const* const given = arguments.find(i, names[i]);
    if (given != nullptr) charge(size_of(*given));
    if (given != nullptr)
      scope.names[names[i]] = *given;
    else if (i >= required)
      scope.names[names[i]] = evaluate(*statement.defaults[i - required], scope);
    else
      scope.names[names[i]] = Undefined{fmt::format("the argument '{}' of a macro is not given", names[i])};
  }
  return captured(statement.body, scope);
}

}  // namespace fsllm::jinja
