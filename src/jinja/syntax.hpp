// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "value.hpp"

namespace fsllm::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind {
  literal,    ///< value
  name,       ///< text
  list,       ///< operands
  dict,       ///< operands: key, value, key, value ...
  attribute,  ///< operands[0].text
  subscript,  ///< operands[0][operands[1]]
  slice,      ///< operands[0][operands[1]:operands[2]:operands[3]], null where left out
  call,       ///< operands[0](operands[1...], named)
  filter,     ///< operands[0] | text(operands[1...], named)
  test,       ///< operands[0] is text(operands[1...])
  unary,      ///< text: not, -, +
  binary,     ///< text: an operator, and, or, in
  condition,  ///< operands[1] if operands[0] else operands[2] (null: undefined)
};

struct Expression {
  ExpressionKind kind = ExpressionKind::literal;
  int line = 1;
  int depth = 1;  ///< of the tree below
  std::string text;
  Value value;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Statement;
using Block = std::vector<Statement>;

enum class StatementKind {
  text,        ///< text
  output,      ///< {{ expression }}
  condition,   ///< if expression: body, else: otherwise
  loop,        ///< for names in expression (if filter): body, else: otherwise
  assignment,  ///< set names = expression; text: the attribute of a namespace, or ""
  capture,     ///< set names[0]: body
  macro,       ///< macro text(names = defaults): body
  filtered,    ///< filter: body goes through expression
  generation,  ///< body is what the model is to learn
  leave,       ///< break
  next,        ///< continue
};

struct Statement {
  StatementKind kind = StatementKind::text;
  int line = 1;
  std::string text;
  std::vector<std::string> names;
  ExpressionPtr expression, filter;
  std::vector<ExpressionPtr> defaults;  ///< of the last names
  Block body, otherwise;
};

/// The statements of a template. What is outside of the subset is an Error "name:line: ...".
Block parse(std::string_view source, std::string const& name);

}  // namespace fsllm::jinja
