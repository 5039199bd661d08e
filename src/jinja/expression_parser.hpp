// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <initializer_list>
#include <string>
#include <vector>

#include "lexer.hpp"
#include "syntax.hpp"

namespace fsllm::jinja {

/// A place in the tokens of a template, and what can be read there: Jinja's expression grammar.
class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, std::string const& name)
      : tokens_(std::move(tokens)), name_(name) {}

  /// With `x if y else z`, and tuples without brackets.
  ExpressionPtr expression();
  /// Without a condition: what a for loop goes through.
  ExpressionPtr disjunction();
  /// `| name(...)` and `is name ...` after `operand`.
  ExpressionPtr filters_and_tests(ExpressionPtr operand);

 protected:
  Token const& token() const { return tokens_[at_]; }
  Token take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool at_symbol(std::string_view text) const {
    return token().kind == TokenKind::symbol && token().text == text;
  }
  bool at_name(std::string_view text) const {
    return token().kind == TokenKind::name && token().text == text;
  }
  bool accept_symbol(std::string_view text);
  bool accept_name(std::string_view text);
  void expect_symbol(std::string_view text);
  std::string expect_name(char const* what);
  [[noreturn]] void refuse_here(std::string const& why) const;
  [[noreturn]] void unexpected(std::string const& wanted) const;
  std::string const& template_name() const { return name_; }
  /// Counts how deep the grammar is nested; too deep is an Error.
  struct Depth {
    explicit Depth(ExpressionParser& owner);
    ~Depth() { --parser.depth_; }
    ExpressionParser& parser;
  };

 private:
  using Level = ExpressionPtr (ExpressionParser::*)();
  ExpressionPtr conjunction();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr filtered_unary() { return unary(true); }
  ExpressionPtr primary();
  ExpressionPtr brackets();
  ExpressionPtr list_until(std::string const& end, ExpressionPtr list);
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr operand);
  ExpressionPtr subscript(ExpressionPtr operand);
  ExpressionPtr call(ExpressionPtr operand);
  ExpressionPtr test(ExpressionPtr operand);
  void arguments(Expression& call);
  ExpressionPtr chain(Level level, std::initializer_list<char const*> symbols);
  ExpressionPtr make(ExpressionKind kind, std::string text = "") const;
  ExpressionPtr binary(std::string text, int line, ExpressionPtr left, ExpressionPtr right) const;
  ExpressionPtr measured(ExpressionPtr node) const;

  std::vector<Token> tokens_;
  std::string const& name_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace fsllm::jinja
