// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/error.hpp"
#include "interpreter.hpp"
#include "library.hpp"

namespace fsllm::jinja {

constexpr size_t kLongestText = size_t{1} << 27;
constexpr int kDeepestCalls = 1000;

Value Interpreter::lookup(std::string const& name, Scope const& scope) const {
  for (auto const* now = &scope; now != nullptr; now = now->outer)
    if (auto const found = now->names.find(name); found != now->names.end()) return found->second;
  return Undefined{fmt::format("'{}' is not defined", name)};
}

Arguments Interpreter::arguments_of(Expression const& expression, Scope& scope) {
  Arguments arguments;
  for (size_t i = 1; i < expression.operands.size(); ++i)
    arguments.positional.push_back(evaluate(*expression.operands[i], scope));
  for (auto const& [name, value] : expression.named)
    arguments.named.emplace_back(name, evaluate(*value, scope));
  return arguments;
}

Value Interpreter::evaluate(Expression const& e, Scope& scope) {
  step(e.line);
  if (++nested_ > kDeepestCalls) refuse("the template is nested too deeply");
  auto value = evaluate_node(e, scope);
  --nested_;
  charge(size_of(value));
  if (value.text() != nullptr && value.text()->size() > kLongestText) refuse("a text becomes too long");
  return value;
}

Value Interpreter::evaluate_node(Expression const& e, Scope& scope) {
  auto const operand = [&](size_t i) {
    return e.operands[i] ? evaluate(*e.operands[i], scope) : Value(None{});
  };
  switch (e.kind) {
    case ExpressionKind::literal:
      return e.value;
    case ExpressionKind::name:
      return lookup(e.text, scope);
    case ExpressionKind::list: {
      List list;
      for (size_t i = 0; i < e.operands.size(); ++i) list.push_back(operand(i));
      return list;
    }
    case ExpressionKind::dict: {
      Dict dict;
      for (size_t i = 0; i < e.operands.size(); i += 2) dict.set(to_text(operand(i)), operand(i + 1));
      return dict;
    }
    case ExpressionKind::attribute:
      return attribute(operand(0), e.text);
    case ExpressionKind::subscript:
      return subscript(operand(0), operand(1));
    case ExpressionKind::slice:
      return slice(operand(0), operand(1), operand(2), operand(3));
    case ExpressionKind::call:
      return evaluate_call(e, scope);
    case ExpressionKind::filter:
      return apply_filter(e.text, operand(0), arguments_of(e, scope));
    case ExpressionKind::test:
      return apply_test(e.text, operand(0), arguments_of(e, scope));
    case ExpressionKind::unary: {
      auto const value = operand(0);
      if (e.text == "not") return !truth(value);
      return e.text == "-" ? arithmetic("-", int64_t{0}, value) : value;
    }
    case ExpressionKind::binary:
      return evaluate_binary(e, scope);
    case ExpressionKind::condition:
      if (truth(operand(0))) return operand(1);
      return e.operands[2] ? operand(2) : Value(Undefined{"a condition without else"});
  }
  return {};
}

Value Interpreter::evaluate_binary(Expression const& e, Scope& scope) {
  auto left = evaluate(*e.operands[0], scope);
  if (e.text == "and") return truth(left) ? evaluate(*e.operands[1], scope) : left;
  if (e.text == "or") return truth(left) ? left : evaluate(*e.operands[1], scope);
  auto const right = evaluate(*e.operands[1], scope);
  if (e.text == "==") return equal(left, right);
  if (e.text == "!=") return !equal(left, right);
  if (e.text == "in") return contains(right, left);
  if (e.text == "not in") return !contains(right, left);
  if (e.text == "<") return less(left, right);
  if (e.text == ">") return less(right, left);
  if (e.text == "<=") return !less(right, left);
  if (e.text == ">=") return !less(left, right);
  return arithmetic(e.text, left, right);
}

Value Interpreter::evaluate_call(Expression const& e, Scope& scope) {
  auto const callee = evaluate(*e.operands[0], scope);
  if (auto const* undefined = std::get_if<Undefined>(&callee.data))
    refuse(fmt::format(
        "{} (functions known here: namespace, dict, range, raise_exception, strftime_now, macros, methods)",
        undefined->what));
  if (callee.function() == nullptr) refuse(fmt::format("a {} is called", type_name(callee)));
  auto const arguments = arguments_of(e, scope);
  line_ = e.line;
  return callee.function()->call(arguments);
}

}  // namespace fsllm::jinja
