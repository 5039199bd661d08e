// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/exact_match.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/text/encode.hpp"

namespace fsllm {
namespace {

/// Room for an answer that goes on where the expected one ends.
constexpr size_t kMoreTokens = 8;

std::string first_line(std::string const& text) {
  constexpr char const* kSpaces = " \t\r\n";
  auto const begin = text.find_first_not_of(kSpaces);
  if (begin == std::string::npos) return "";
  auto const line = text.substr(begin, text.find('\n', begin) - begin);
  return line.substr(0, line.find_last_not_of(kSpaces) + 1);
}

/// Prompt and expected answer of one row, cut as in training.
ScoredRow question_of(Sample const& row, PromptTemplate const& prompt, Tokenizer const& tokenizer,
                      int64_t max_positions) {
  FSLLM_CHECK(row.kind == SampleKind::instruction,
              "{}: a row of tokens, text or chat (exact match compares an answer to an instruction). Give "
              "instruction and output.",
              row.place);
  FSLLM_CHECK(row.output.find('\n') == std::string::npos,
              "{}: an output of several lines (exact match compares one line). Shorten it.", row.place);
  auto const encoded = encode_sample(row, prompt, &tokenizer);
  auto const length = static_cast<int64_t>(encoded.ids.size() + kMoreTokens);
  FSLLM_CHECK(length <= max_positions,
              "{}: prompt and answer need {} tokens (the model has {} positions). Shorten the row.",
              row.place, length, max_positions);
  auto const answer = std::find(encoded.is_target.begin(), encoded.is_target.end(), 1);
  auto const answer_end = std::find(encoded.is_target.rbegin(), encoded.is_target.rend(), 1).base();
  FSLLM_CHECK(answer != encoded.is_target.begin() && answer < answer_end,
              "{}: no prompt or no answer (there is nothing to ask or to compare). Complete the row.",
              row.place);
  return {{encoded.ids.begin(), encoded.ids.begin() + (answer_end - encoded.is_target.begin())},
          answer_end - answer};
}

}  // namespace

RowQuestions::RowQuestions(std::vector<Sample> const& rows, PromptTemplate const& prompt,
                           Tokenizer const& tokenizer, int64_t max_positions)
    : tokenizer_(tokenizer) {
  for (auto const& row : rows) {
    scored_.push_back(question_of(row, prompt, tokenizer, max_positions));
    expected_.push_back(first_line(row.output));
  }
}

std::vector<Continuation> RowQuestions::open(std::vector<RowScore> const& scores) const {
  std::vector<Continuation> texts;
  for (size_t i = 0; i < scored_.size(); ++i) {
    // Where every expected token is the most likely one, EOS included, the greedy answer is the expected one.
    if (scores[i].is_greedy) continue;
    auto const& [ids, targets] = scored_[i];
    texts.push_back({{.prompt = {ids.begin(), ids.end() - targets},
                      .max_tokens = targets + static_cast<int64_t>(kMoreTokens)},
                     {}});
  }
  return texts;
}

std::vector<RowAnswer> RowQuestions::answers(std::vector<RowScore> const& scores,
                                             std::vector<NewToken> const& tokens) const {
  auto const texts = tokens_by_row(tokens, scored_.size());
  std::vector<RowAnswer> results;
  size_t next = 0;
  for (size_t i = 0; i < scored_.size(); ++i) {
    RowAnswer answer{expected_[i], true, -scores[i].loglikelihood, scored_[i].targets};
    if (!scores[i].is_greedy) {
      answer.text = first_line(text_before_stop(tokenizer_, texts[next++], {}));
      answer.exact = answer.text == expected_[i];
    }
    results.push_back(std::move(answer));
  }
  return results;
}

std::vector<RowAnswer> answer_rows(CausalLM& model, Tokenizer const& tokenizer,
                                   std::vector<Sample> const& rows, TemplateConfig const& config,
                                   int64_t batch_tokens) {
  RowQuestions const questions(rows, make_prompt_template(config), tokenizer, model.config().max_positions);
  auto const scores = score_rows(model, questions.scored(), batch_tokens);
  return questions.answers(scores, continue_rows(model, &tokenizer, questions.open(scores), batch_tokens));
}

void ExactMatch::add(RowAnswer const& answer) {
  ++rows;
  exact += answer.exact ? 1 : 0;
  targets += answer.targets;
  loss_sum += answer.loss_sum;
}

}  // namespace fsllm
