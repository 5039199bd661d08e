// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/exact_match.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/eval/requests.hpp"
#include "fsllm/text/encode.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

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
struct Question {
  std::vector<int32_t> context, continuation;
};

Question question_of(Sample const& row, PromptTemplate const& prompt, Tokenizer const& tokenizer,
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
  auto const cut = encoded.ids.begin() + (answer - encoded.is_target.begin());
  auto const end = std::max(cut, encoded.ids.begin() + (answer_end - encoded.is_target.begin()));
  Question question{{encoded.ids.begin(), cut}, {cut, end}};
  FSLLM_CHECK(!question.context.empty() && !question.continuation.empty(),
              "{}: no prompt or no answer (there is nothing to ask or to compare). Complete the row.",
              row.place);
  return question;
}

Request scored(Sample const& row, Question const& question) {
  return {row.place, json{{"id", 0},
                          {"type", "loglikelihood"},
                          {"context_ids", question.context},
                          {"continuation_ids", question.continuation}}
                         .dump()};
}

Request asked(Sample const& row, Question const& question) {
  return {row.place, json{{"id", 0},
                          {"type", "generate_until"},
                          {"context_ids", question.context},
                          {"max_tokens", question.continuation.size() + kMoreTokens}}
                         .dump()};
}

}  // namespace

std::vector<RowAnswer> answer_rows(CausalLM& model, Tokenizer const& tokenizer,
                                   std::vector<Sample> const& rows, TemplateConfig const& config,
                                   int64_t batch_tokens) {
  auto const prompt = make_prompt_template(config);
  std::vector<Question> questions;
  std::vector<Request> scores, texts;
  for (auto const& row : rows) {
    questions.push_back(question_of(row, prompt, tokenizer, model.config().max_positions));
    scores.push_back(scored(row, questions.back()));
  }
  auto const known = answer_requests(model, &tokenizer, scores, batch_tokens);
  std::vector<RowAnswer> results(rows.size());
  std::vector<size_t> open;
  for (size_t i = 0; i < rows.size(); ++i) {
    auto const score = json::parse(known[i]);
    results[i] = {first_line(rows[i].output), true, -score.at("loglikelihood").get<double>(),
                  score.at("num_tokens").get<int64_t>()};
    // Where every expected token is the most likely one, EOS included, the greedy answer is the expected one.
    if (score.at("is_greedy").get<bool>()) continue;
    open.push_back(i);
    texts.push_back(asked(rows[i], questions[i]));
  }
  auto const said = answer_requests(model, &tokenizer, texts, batch_tokens);
  for (size_t k = 0; k < open.size(); ++k) {
    auto& result = results[open[k]];
    auto const text = first_line(json::parse(said[k]).at("text").get<std::string>());
    result.exact = text == result.text;
    result.text = text;
  }
  return results;
}

void ExactMatch::add(RowAnswer const& answer) {
  ++rows;
  exact += answer.exact ? 1 : 0;
  targets += answer.targets;
  loss_sum += answer.loss_sum;
}

}  // namespace fsllm
