// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ctime>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "syntax.hpp"

namespace fsllm::jinja {

/// Names of one block; inner ones see the outer ones.
struct Scope {
  std::map<std::string, Value, std::less<>> names;
  Scope* outer = nullptr;
};

/// Runs a template once. Work, depth and output are bounded.
class Interpreter {
 public:
  /// `date` is the day on which strftime_now says it is rendered.
  Interpreter(std::string const& name, std::tm const& date, Dict const& variables);
  void run(Block const& block);
  std::string& output() { return output_; }
  /// Byte ranges of the output that stand in generation blocks.
  std::vector<std::pair<size_t, size_t>> const& generated() const { return generated_; }

 private:
  enum class Flow { on, leave, next };
  Flow run_block(Block const& block, Scope& scope);
  Flow run_statement(Statement const& statement, Scope& scope);
  void run_loop(Statement const& loop, Scope& scope);
  void bind(Statement const& statement, Value const& value, Scope& scope);
  void check_nesting(Value const& value, int depth);
  void set_attribute(Statement const& statement, Value value, Scope& scope);
  Value captured(Block const& block, Scope& scope);
  Value macro(Statement const& statement);
  Value call_macro(Statement const& statement, Arguments const& arguments);

  Value evaluate(Expression const& expression, Scope& scope);
  Value evaluate_node(Expression const& expression, Scope& scope);
  Value evaluate_binary(Expression const& expression, Scope& scope);
  Value evaluate_call(Expression const& expression, Scope& scope);
  Value lookup(std::string const& name, Scope const& scope) const;
  Arguments arguments_of(Expression const& expression, Scope& scope);
  void step(int line);
  [[noreturn]] void refuse_at(int line, std::string const& why) const;

  std::string const& name_;
  Scope globals_;
  std::string output_;
  std::vector<std::pair<size_t, size_t>> generated_;
  int64_t steps_ = 0;
  int depth_ = 0, line_ = 1;
  int nested_ = 0;  ///< expressions, those that called the macro they are in among them
};

}  // namespace fsllm::jinja
