// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/exact_match.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/eval/requests.hpp"
#include "fsllm/text/prepare.hpp"

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

/// A loglikelihood and a generate_until request for one row, prompt and answer cut as in training.
void add_requests(Sample const& row, DataConfig const& config, Tokenizer const& tokenizer,
                  int64_t max_positions, std::vector<Request>& requests) {
  FSLLM_CHECK(!row.is_tokens,
              "{}: a row of tokens (exact match compares texts). Give instruction and output.", row.place);
  FSLLM_CHECK(row.output.find('\n') == std::string::npos,
              "{}: an output of several lines (exact match compares one line). Shorten it.", row.place);
  auto const encoded = encode_sample(row, config, &tokenizer);
  auto const length = static_cast<int64_t>(encoded.ids.size() + kMoreTokens);
  FSLLM_CHECK(length <= max_positions,
              "{}: prompt and answer need {} tokens (the model has {} positions). Shorten the row.",
              row.place, length, max_positions);
  auto const answer = std::find(encoded.is_target.begin(), encoded.is_target.end(), 1);
  auto const cut = encoded.ids.begin() + (answer - encoded.is_target.begin());
  std::vector<int32_t> const context(encoded.ids.begin(), cut), continuation(cut, encoded.ids.end());
  FSLLM_CHECK(!context.empty() && !continuation.empty(),
              "{}: no prompt or no answer (there is nothing to ask or to compare). Complete the row.",
              row.place);
  requests.push_back(
      {row.place,
       json{
           {"id", 0}, {"type", "loglikelihood"}, {"context_ids", context}, {"continuation_ids", continuation}}
           .dump()});
  requests.push_back({row.place, json{{"id", 0},
                                      {"type", "generate_until"},
                                      {"context_ids", context},
                                      {"max_tokens", continuation.size() + kMoreTokens}}
                                     .dump()});
}

}  // namespace

std::vector<RowAnswer> answer_rows(CausalLM& model, Tokenizer const& tokenizer,
                                   std::vector<Sample> const& rows, DataConfig const& config,
                                   int64_t batch_tokens) {
  std::vector<Request> requests;
  for (auto const& row : rows) add_requests(row, config, tokenizer, model.config().max_positions, requests);
  auto const answers = answer_requests(model, &tokenizer, requests, batch_tokens);
  std::vector<RowAnswer> results(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    auto const score = json::parse(answers[2 * i]), said = json::parse(answers[2 * i + 1]);
    auto& result = results[i];
    result.text = first_line(said.at("text").get<std::string>());
    result.exact = result.text == first_line(rows[i].output);
    result.loss_sum = -score.at("loglikelihood").get<double>();
    result.targets = score.at("num_tokens").get<int64_t>();
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
