// SPDX-License-Identifier: Apache-2.0
#include "expression_parser.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm::jinja {
namespace {

/// Statements of a template.
class Parser : private ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Block whole() {
    auto block = statements({});
    if (token().kind != TokenKind::end) refuse_here(fmt::format("{{% {} %}} closes nothing", token().text));
    return block;
  }

 private:
  /// Up to a block tag whose word is one of `ends`; the word is the current token then.
  Block statements(std::initializer_list<char const*> ends) {
    Depth const depth(*this);
    Block block;
    while (token().kind != TokenKind::end) {
      if (token().kind == TokenKind::text) {
        block.push_back(start(StatementKind::text));
        block.back().text = take().text;
      } else if (token().kind == TokenKind::output_begin) {
        block.push_back(output());
      } else {
        take();
        for (auto const* end : ends)
          if (at_name(end)) return block;
        block.push_back(tag());
      }
    }
    if (ends.size() > 0) refuse_here(fmt::format("{{% {} %}} is missing at the end", *(ends.end() - 1)));
    return block;
  }

  Statement start(StatementKind kind) const {
    Statement statement;
    statement.kind = kind;
    statement.line = token().line;
    return statement;
  }

  Statement output() {
    auto statement = start(StatementKind::output);
    take();
    statement.expression = tuple();
    if (token().kind != TokenKind::output_end) unexpected("'}}'");
    take();
    return statement;
  }

  /// a, b is a list; most often there is one value.
  ExpressionPtr tuple() {
    auto first = expression();
    if (!at_symbol(",")) return first;
    auto list = std::make_unique<Expression>();
    list->kind = ExpressionKind::list;
    list->line = token().line;
    list->operands.push_back(std::move(first));
    while (accept_symbol(",") && token().kind != TokenKind::block_end &&
           token().kind != TokenKind::output_end)
      list->operands.push_back(expression());
    return list;
  }

  void end_tag() {
    if (token().kind != TokenKind::block_end) unexpected("'%}'");
    take();
  }

  void close(char const* word) {
    if (!accept_name(word)) unexpected(fmt::format("{{% {} %}}", word));
    end_tag();
  }

  /// A row for each statement that may stand in a template.
  Statement tag() {
    struct Tag {
      char const* word;
      Statement (Parser::*read)();
    };
    static constexpr Tag kTags[] = {
        {"if", &Parser::condition},          {"for", &Parser::loop},
        {"set", &Parser::assignment},        {"macro", &Parser::macro},
        {"generation", &Parser::generation}, {"filter", &Parser::filtered},
        {"break", &Parser::leave},           {"continue", &Parser::next},
    };
    for (auto const& [word, read] : kTags)
      if (accept_name(word)) return (this->*read)();
    auto const word = token().text.substr(0, 40);
    refuse_here(word.starts_with("end") || word.starts_with("el")
                    ? fmt::format("{{% {} %}} closes nothing", word)
                    : fmt::format("{{% {} %}} is outside of the part of Jinja known here", word));
  }

  Statement condition() {
    Depth const depth(*this);
    auto statement = start(StatementKind::condition);
    statement.expression = expression();
    end_tag();
    statement.body = statements({"elif", "else", "endif"});
    if (accept_name("elif")) {
      statement.otherwise.push_back(condition());
      return statement;
    }
    if (accept_name("else")) {
      end_tag();
      statement.otherwise = statements({"endif"});
    }
    close("endif");
    return statement;
  }

  Statement loop() {
    auto statement = start(StatementKind::loop);
    bool const in_brackets = accept_symbol("(");
    do statement.names.push_back(expect_name("the name of a variable"));
    while (accept_symbol(","));
    if (in_brackets) expect_symbol(")");
    if (!accept_name("in")) unexpected("'in'");
    statement.expression = disjunction();
    if (accept_name("if")) statement.filter = expression();
    if (at_name("recursive")) refuse_here("a recursive loop is outside of the part of Jinja known here");
    end_tag();
    statement.body = statements({"else", "endfor"});
    if (accept_name("else")) {
      end_tag();
      statement.otherwise = statements({"endfor"});
    }
    close("endfor");
    return statement;
  }

  Statement assignment() {
    auto statement = start(StatementKind::assignment);
    do statement.names.push_back(expect_name("the name of a variable"));
    while (accept_symbol(","));
    if (accept_symbol(".")) statement.text = expect_name("an attribute");
    if (accept_symbol("=")) {
      statement.expression = tuple();
      end_tag();
      return statement;
    }
    if (at_symbol("|")) refuse_here("{% set %} with a filter is outside of the part of Jinja known here");
    statement.kind = StatementKind::capture;
    end_tag();
    statement.body = statements({"endset"});
    close("endset");
    return statement;
  }

  Statement macro() {
    auto statement = start(StatementKind::macro);
    statement.text = expect_name("the name of a macro");
    expect_symbol("(");
    while (!accept_symbol(")")) {
      statement.names.push_back(expect_name("the name of an argument"));
      if (accept_symbol("="))
        statement.defaults.push_back(expression());
      else if (!statement.defaults.empty())
        unexpected("a default value");
      if (!at_symbol(")")) expect_symbol(",");
    }
    end_tag();
    statement.body = statements({"endmacro"});
    close("endmacro");
    return statement;
  }

  Statement generation() {
    auto statement = start(StatementKind::generation);
    end_tag();
    statement.body = statements({"endgeneration"});
    close("endgeneration");
    return statement;
  }

  /// The body stands for the empty name at the root of the filters.
  Statement filtered() {
    auto statement = start(StatementKind::filtered);
    auto root = std::make_unique<Expression>();
    root->kind = ExpressionKind::name;
    auto call = std::make_unique<Expression>();
    call->kind = ExpressionKind::filter;
    call->line = token().line;
    call->text = expect_name("the name of a filter");
    call->operands.push_back(std::move(root));
    statement.expression = filters_and_tests(std::move(call));
    end_tag();
    statement.body = statements({"endfilter"});
    close("endfilter");
    return statement;
  }

  Statement leave() {
    end_tag();
    return start(StatementKind::leave);
  }

  Statement next() {
    end_tag();
    return start(StatementKind::next);
  }
};

}  // namespace

Block parse(std::string_view source, std::string const& name) {
  return Parser(tokenize(source, name), name).whole();
}

}  // namespace fsllm::jinja
