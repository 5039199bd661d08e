// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/eval/continuation.hpp"
#include "fsllm/text/sample.hpp"
#include "fsllm/text/template.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// What a model says to one row, and how well it knows the expected answer.
struct RowAnswer {
  std::string text;     ///< first line of the answer that is not blank, without spaces around it
  bool exact = false;   ///< `text` is the expected output, letter by letter
  double loss_sum = 0;  ///< cross-entropy summed over the expected answer's tokens, EOS included
  int64_t targets = 0;  ///< those tokens
};

/// Rows (instruction, input, output) as questions to a model, asked in two passes: every row's expected
/// answer is scored, and only where it is not the greedy one a text is generated, a few tokens longer than
/// that. Token rows, and prompts without room for the answer, are Errors that name the row.
class RowQuestions {
 public:
  RowQuestions(std::vector<Sample> const& rows, PromptTemplate const& prompt, Tokenizer const& tokenizer,
               int64_t max_positions);

  std::vector<ScoredRow> const& scored() const { return scored_; }
  /// What is to be generated, given the scores of all rows in order.
  std::vector<Continuation> open(std::vector<RowScore> const& scores) const;
  /// Entry i belongs to row i; `tokens` continue what open() returned.
  std::vector<RowAnswer> answers(std::vector<RowScore> const& scores,
                                 std::vector<NewToken> const& tokens) const;

 private:
  Tokenizer const& tokenizer_;
  std::vector<std::string> expected_;
  std::vector<ScoredRow> scored_;
};

/// All answers of one process.
std::vector<RowAnswer> answer_rows(CausalLM& model, Tokenizer const& tokenizer,
                                   std::vector<Sample> const& rows, TemplateConfig const& config,
                                   int64_t batch_tokens);

/// Sums over rows.
struct ExactMatch {
  int64_t rows = 0, exact = 0, targets = 0;
  double loss_sum = 0;
  void add(RowAnswer const& answer);
  double share() const { return rows > 0 ? static_cast<double>(exact) / static_cast<double>(rows) : 0; }
  double loss() const { return targets > 0 ? loss_sum / static_cast<double>(targets) : 0; }
};

}  // namespace fsllm
