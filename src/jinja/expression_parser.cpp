// SPDX-License-Identifier: Apache-2.0
#include "expression_parser.hpp"

#include <algorithm>
#include <charconv>

#include "fsllm/core/error.hpp"

namespace fsllm::jinja {
namespace {

constexpr int kDeepest = 200, kDeepestTree = 400;

}  // namespace

ExpressionPtr ExpressionParser::binary(std::string text, int line, ExpressionPtr left,
                                       ExpressionPtr right) const {
  auto node = std::make_unique<Expression>();
  node->kind = ExpressionKind::binary;
  node->text = std::move(text);
  node->line = line;
  node->operands.push_back(std::move(left));
  node->operands.push_back(std::move(right));
  return measured(std::move(node));
}

/// Long chains make deep trees, which evaluation goes down into.
ExpressionPtr ExpressionParser::measured(ExpressionPtr node) const {
  for (auto const& operand : node->operands)
    if (operand) node->depth = std::max(node->depth, operand->depth + 1);
  for (auto const& [name, operand] : node->named) node->depth = std::max(node->depth, operand->depth + 1);
  if (node->depth > kDeepestTree) refuse_here("an expression of too many parts");
  return node;
}

ExpressionParser::Depth::Depth(ExpressionParser& owner) : parser(owner) {
  if (++parser.depth_ > kDeepest) parser.refuse_here("the template is nested too deeply");
}

void ExpressionParser::refuse_here(std::string const& why) const {
  fail(fmt::format("{}:{}: {}. Correct the template, or choose a named one with data.prompt_template.", name_,
                   token().line, why));
}

void ExpressionParser::unexpected(std::string const& wanted) const {
  auto const& found = token();
  bool const has_text = !found.text.empty() && found.kind != TokenKind::text;
  refuse_here(fmt::format("{} is missing before {}", wanted,
                          has_text ? "'" + found.text.substr(0, 40) + "'" : std::string("the tag's end")));
}

bool ExpressionParser::accept_symbol(std::string_view text) {
  bool const yes = at_symbol(text);
  if (yes) take();
  return yes;
}

bool ExpressionParser::accept_name(std::string_view text) {
  bool const yes = at_name(text);
  if (yes) take();
  return yes;
}

void ExpressionParser::expect_symbol(std::string_view text) {
  if (!accept_symbol(text)) unexpected("'" + std::string(text) + "'");
}

std::string ExpressionParser::expect_name(char const* what) {
  if (token().kind != TokenKind::name) unexpected(what);
  return take().text;
}

ExpressionPtr ExpressionParser::make(ExpressionKind kind, std::string text) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = token().line;
  node->text = std::move(text);
  return node;
}

ExpressionPtr ExpressionParser::expression() {
  Depth const depth(*this);
  auto value = disjunction();
  while (at_name("if")) {
    auto node = make(ExpressionKind::condition);
    take();
    node->operands.push_back(disjunction());
    node->operands.push_back(std::move(value));
    node->operands.push_back(accept_name("else") ? expression() : nullptr);
    value = measured(std::move(node));
  }
  return value;
}

ExpressionPtr ExpressionParser::disjunction() {
  auto left = conjunction();
  while (at_name("or")) {
    int const line = take().line;
    left = binary("or", line, std::move(left), conjunction());
  }
  return left;
}

ExpressionPtr ExpressionParser::conjunction() {
  auto left = negation();
  while (at_name("and")) {
    int const line = take().line;
    left = binary("and", line, std::move(left), negation());
  }
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  if (!at_name("not")) return comparison();
  Depth const depth(*this);
  auto node = make(ExpressionKind::unary, "not");
  take();
  node->operands.push_back(negation());
  return measured(std::move(node));
}

/// a < b; chains such as a < b < c have no place in chat templates.
ExpressionPtr ExpressionParser::comparison() {
  auto left = sum();
  int compared = 0;
  while (true) {
    std::string symbol;
    for (auto const* known : {"==", "!=", "<", "<=", ">", ">="})
      if (at_symbol(known)) symbol = known;
    if (at_name("in")) symbol = "in";
    bool const not_in =
        at_name("not") && tokens_[at_ + 1].kind == TokenKind::name && tokens_[at_ + 1].text == "in";
    if (not_in) symbol = "not in";
    if (symbol.empty()) return left;
    if (++compared > 1) refuse_here("a chain of comparisons (not known here)");
    int const line = take().line;
    if (not_in) take();
    left = binary(symbol, line, std::move(left), sum());
  }
}

ExpressionPtr ExpressionParser::chain(Level level, std::initializer_list<char const*> symbols) {
  auto left = (this->*level)();
  while (true) {
    char const* found = nullptr;
    for (auto const* symbol : symbols)
      if (at_symbol(symbol)) found = symbol;
    if (found == nullptr) return left;
    int const line = take().line;
    left = binary(found, line, std::move(left), (this->*level)());
  }
}

ExpressionPtr ExpressionParser::sum() {
  return chain(&ExpressionParser::concatenation, {"+", "-"});
}

ExpressionPtr ExpressionParser::concatenation() {
  return chain(&ExpressionParser::product, {"~"});
}

ExpressionPtr ExpressionParser::product() {
  return chain(&ExpressionParser::power, {"*", "/", "//", "%"});
}

ExpressionPtr ExpressionParser::power() {
  return chain(&ExpressionParser::filtered_unary, {"**"});
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  Depth const depth(*this);
  ExpressionPtr node;
  if (at_symbol("-") || at_symbol("+")) {
    node = make(ExpressionKind::unary, token().text);
    take();
    node->operands.push_back(unary(false));
    node = measured(std::move(node));
  } else {
    node = postfix(primary());
  }
  return with_filters ? filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::primary() {
  auto node = make(ExpressionKind::literal);
  auto const& now = token();
  if (now.kind == TokenKind::string) {
    std::string text = take().text;
    while (token().kind == TokenKind::string) text += take().text;
    node->value = text;
  } else if (now.kind == TokenKind::integer) {
    int64_t number = 0;
    auto const digits = take().text;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), number).ec != std::errc())
      refuse_here("the number " + digits + " is too large");
    node->value = number;
  } else if (now.kind == TokenKind::real) {
    double number = 0;
    auto const digits = take().text;
    std::from_chars(digits.data(), digits.data() + digits.size(), number);
    node->value = number;
  } else if (now.kind == TokenKind::name) {
    auto const name = take().text;
    if (name == "true" || name == "True")
      node->value = true;
    else if (name == "false" || name == "False")
      node->value = false;
    else if (name == "none" || name == "None")
      node->value = None{};
    else {
      node->kind = ExpressionKind::name;
      node->text = name;
    }
  } else {
    return brackets();
  }
  return node;
}

ExpressionPtr ExpressionParser::brackets() {
  if (at_symbol("{")) return dict();
  auto list = make(ExpressionKind::list);
  if (accept_symbol("[")) return list_until("]", std::move(list));
  if (!accept_symbol("(")) unexpected("a value");
  if (accept_symbol(")")) return list;
  auto first = expression();
  if (accept_symbol(")")) return first;
  expect_symbol(",");
  list->operands.push_back(std::move(first));
  return list_until(")", std::move(list));
}

ExpressionPtr ExpressionParser::list_until(std::string const& end, ExpressionPtr list) {
  while (!accept_symbol(end)) {
    list->operands.push_back(expression());
    if (!at_symbol(end)) expect_symbol(",");
  }
  return measured(std::move(list));
}

ExpressionPtr ExpressionParser::dict() {
  auto node = make(ExpressionKind::dict);
  expect_symbol("{");
  while (!accept_symbol("}")) {
    node->operands.push_back(expression());
    expect_symbol(":");
    node->operands.push_back(expression());
    if (!at_symbol("}")) expect_symbol(",");
  }
  return measured(std::move(node));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr operand) {
  while (true) {
    if (at_symbol(".")) {
      auto node = make(ExpressionKind::attribute);
      take();
      if (token().kind == TokenKind::integer) {
        node->kind = ExpressionKind::subscript;
        node->operands.push_back(std::move(operand));
        node->operands.push_back(primary());
      } else {
        node->text = expect_name("a name");
        node->operands.push_back(std::move(operand));
      }
      operand = measured(std::move(node));
    } else if (at_symbol("[")) {
      operand = subscript(std::move(operand));
    } else if (at_symbol("(")) {
      operand = call(std::move(operand));
    } else {
      return operand;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr operand) {
  auto node = make(ExpressionKind::subscript);
  expect_symbol("[");
  node->operands.push_back(std::move(operand));
  node->operands.push_back(at_symbol(":") ? nullptr : expression());
  while (accept_symbol(":")) {
    node->kind = ExpressionKind::slice;
    node->operands.push_back(at_symbol(":") || at_symbol("]") ? nullptr : expression());
  }
  expect_symbol("]");
  if (node->kind == ExpressionKind::slice && node->operands.size() > 4)
    refuse_here("a slice has too many parts");
  if (node->kind == ExpressionKind::slice) node->operands.resize(4);
  return measured(std::move(node));
}

ExpressionPtr ExpressionParser::call(ExpressionPtr operand) {
  auto node = make(ExpressionKind::call);
  node->operands.push_back(std::move(operand));
  arguments(*node);
  return measured(std::move(node));
}

void ExpressionParser::arguments(Expression& call) {
  expect_symbol("(");
  while (!accept_symbol(")")) {
    bool const is_named = token().kind == TokenKind::name && tokens_[at_ + 1].kind == TokenKind::symbol &&
                          tokens_[at_ + 1].text == "=";
    if (at_symbol("*") || at_symbol("**")) refuse_here("arguments by * or ** (not known here)");
    if (is_named) {
      auto name = take().text;
      take();
      call.named.emplace_back(std::move(name), expression());
    } else {
      call.operands.push_back(expression());
    }
    if (!at_symbol(")")) expect_symbol(",");
  }
}

ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr operand) {
  while (true) {
    if (at_symbol("|")) {
      auto node = make(ExpressionKind::filter);
      take();
      node->text = expect_name("the name of a filter");
      node->operands.push_back(std::move(operand));
      if (at_symbol("(")) arguments(*node);
      operand = measured(std::move(node));
    } else if (at_name("is")) {
      operand = test(std::move(operand));
    } else if (at_symbol("(")) {
      operand = call(std::move(operand));
    } else {
      return operand;
    }
  }
}

ExpressionPtr ExpressionParser::test(ExpressionPtr operand) {
  auto node = make(ExpressionKind::test);
  take();
  bool const negated = accept_name("not");
  node->text = expect_name("the name of a test");
  node->operands.push_back(std::move(operand));
  auto const& next = token();
  bool const is_word = next.kind == TokenKind::name && next.text != "else" && next.text != "or" &&
                       next.text != "and" && next.text != "is" && next.text != "if" && next.text != "in" &&
                       next.text != "not";
  bool const is_value =
      next.kind == TokenKind::string || next.kind == TokenKind::integer || next.kind == TokenKind::real;
  if (at_symbol("("))
    arguments(*node);
  else if (is_word || is_value || at_symbol("[") || at_symbol("{"))
    node->operands.push_back(postfix(primary()));
  node = measured(std::move(node));
  if (!negated) return node;
  auto outer = make(ExpressionKind::unary, "not");
  outer->operands.push_back(std::move(node));
  return measured(std::move(outer));
}

}  // namespace fsllm::jinja
