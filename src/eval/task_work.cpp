// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/task_work.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "text_rows.hpp"

namespace fsllm {
namespace {

/// Texts of a running batch: enough for good passes, few enough that many ranks have some.
constexpr size_t kWrittenRows = 32;

/// Numbers of the batches of one kind.
std::set<int64_t> numbers_of(std::vector<FinishedBatch> const& kept, bool is_written) {
  std::set<int64_t> numbers;
  for (auto const& batch : kept)
    if (batch.is_written == is_written) numbers.insert(batch.number);
  return numbers;
}

}  // namespace

TaskWork::TaskWork(EvalTask const& task, ModelConfig const& config, Tokenizer const& tokenizer)
    : tokenizer_(tokenizer) {
  for (size_t i = 0; i < task.items.size(); ++i) add(task.items[i], i, config);
}

std::vector<int32_t> TaskWork::encoded(TaskItem const& item, std::string const& prompt) const {
  return item.has_specials ? tokenizer_.encode(prompt, false) : tokenizer_.encode_beginning(prompt);
}

std::string TaskWork::fitting_prompt(TaskItem const& item, int64_t room, Place& place) const {
  auto const shots = item.examples ? item.examples->shots.size() : 0;
  for (size_t dropped = 0;; ++dropped) {
    auto prompt = item.prompt(dropped);
    bool const fits = static_cast<int64_t>(encoded(item, prompt).size()) <= room;
    if (!fits && dropped < shots) continue;
    place.dropped_shots = static_cast<int64_t>(dropped);
    place.is_cut = !fits;
    return prompt;
  }
}

void TaskWork::add(TaskItem const& item, size_t number, ModelConfig const& config) {
  Place place{scored_.size(), item.choices.size(), 0, continued_.size(), 0};
  auto const length = [&](std::string const& text) {
    return static_cast<int64_t>(tokenizer_.encode(text, false).size());
  };
  auto const& writing = item.writing;
  int64_t max_tokens = writing.as_long_as.empty() ? writing.max_tokens : length(writing.as_long_as);
  max_tokens = std::min(max_tokens, config.max_positions / 2);
  int64_t longest = max_tokens;
  // The last token of a choice is not fed.
  for (auto const& choice : item.choices) longest = std::max(longest, length(choice) - 1);
  std::string prompt;
  if (!item.choices.empty() || writing.is_wanted())
    prompt = fitting_prompt(item, config.max_positions - longest, place);
  if (!item.choices.empty()) {
    detail::ScoredContext const context(tokenizer_, prompt);
    for (auto const& choice : item.choices) {
      scored_.push_back(context.row(choice));
      auto const targets = scored_.back().targets;
      FSLLM_CHECK(targets > 0 && targets <= config.max_positions,
                  "item {}: a choice of {} tokens, '{:.60}' (at least one, and at most the model's {} "
                  "positions, can be scored). Correct it.",
                  number, targets, choice, config.max_positions);
    }
  }
  if (!item.document.empty()) {
    auto windows = rolling_windows(tokenizer_.encode(item.document, false), detail::prefix_id(tokenizer_),
                                   config.max_positions);
    place.windows = windows.size();
    std::move(windows.begin(), windows.end(), std::back_inserter(scored_));
  }
  if (writing.is_wanted()) {
    auto ids = encoded(item, prompt);
    if (ids.empty()) ids.push_back(detail::prefix_id(tokenizer_));
    auto const room = static_cast<size_t>(config.max_positions - max_tokens);
    if (ids.size() > room) ids.erase(ids.begin(), ids.end() - static_cast<std::ptrdiff_t>(room));
    place.texts = static_cast<size_t>(writing.samples);
    for (size_t s = 0; s < place.texts; ++s)
      continued_.push_back({{.prompt = ids,
                             .max_tokens = max_tokens,
                             .temperature = writing.temperature,
                             .seed = number * place.texts + s,
                             .top_k = writing.top_k,
                             .top_p = writing.top_p},
                            writing.stops});
  }
  places_.push_back(place);
}

RequestResults TaskWork::compute(
    CausalLM& model, int64_t batch_tokens, int64_t index, int64_t count,
    std::vector<FinishedBatch> const& kept,
    std::function<void(FinishedBatch const&, int64_t rows_over)> const& finished) const {
  RequestResults results;
  results.scores = score_rows(model, scored_, batch_tokens, {index, count, numbers_of(kept, false)},
                              [&](BatchDone const& done, auto const& scores) {
                                if (finished)
                                  finished({false, done.number, done.rows, scores, {}}, done.rows_over);
                              });
  results.tokens =
      continue_rows(model, &tokenizer_, continued_, batch_tokens, {index, count, numbers_of(kept, true)},
                    kWrittenRows, [&](BatchDone const& done, auto const& tokens) {
                      if (finished) finished({true, done.number, done.rows, {}, tokens}, done.rows_over);
                    });
  return results;
}

std::vector<ItemAnswer> TaskWork::answers(RequestResults const& results) const {
  std::vector<RowScore> scores(scored_.size());
  for (auto const& score : results.scores) scores[static_cast<size_t>(score.row)] = score;
  auto const ids = tokens_by_row(results.tokens, continued_.size());
  std::vector<ItemAnswer> answers;
  for (auto const& place : places_) {
    ItemAnswer answer;
    answer.dropped_shots = place.dropped_shots;
    answer.is_cut = place.is_cut;
    size_t row = place.scored;
    for (size_t c = 0; c < place.scores; ++c, ++row)
      answer.choices.push_back({scores[row].loglikelihood, scores[row].is_greedy, scored_[row].targets});
    if (place.windows > 0) answer.choices.push_back({0, true, 0});
    for (size_t w = 0; w < place.windows; ++w, ++row) {
      answer.choices.back().loglikelihood += scores[row].loglikelihood;
      answer.choices.back().is_greedy &= scores[row].is_greedy;
      answer.choices.back().tokens += scored_[row].targets;
    }
    for (size_t t = 0; t < place.texts; ++t)
      answer.texts.push_back(
          text_before_stop(tokenizer_, ids[place.continued + t], continued_[place.continued + t].stops));
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace fsllm
