// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/model/causal_lm.hpp"
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

/// Answers rows (instruction, input, output) greedily in batches, with the prompts of
/// `config.prompt_template`; entry i belongs to row i. An answer may be a few tokens longer than the expected
/// one. Token rows and prompts without room for the answer are Errors that name the row.
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
