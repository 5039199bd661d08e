// SPDX-License-Identifier: Apache-2.0
// FlowerTune LLM Leaderboard, General NLP (adap/flower, benchmarks/flowertune-llm/evaluation/general-nlp):
// MMLU's test questions of STEM, social sciences and humanities without examples, greedy text as long as the
// letter A. Its scorer takes the first letter or digit of that text; beside it stands the likeliest of the
// four letters behind the same prompt.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>

#include "choice.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/eval/task.hpp"
#include "mmlu_data.hpp"

namespace fsllm {
namespace {

constexpr char const* kLetters = "ABCD";

std::string prompt_of(detail::MmluQuestion const& question) {
  auto text = question.question;
  if (!text.ends_with('?') && !text.ends_with('.')) text += "?";
  auto prompt = "<|im_start|>question\nAnswer the following multiple choice question.\nQuestion: " + text +
                "\n\nOptions:";
  for (size_t c = 0; c < question.choices.size(); ++c)
    prompt += fmt::format("\n{}. {}", kLetters[c], question.choices[c]);
  return prompt + "\nThe answer is:\n<|im_end|>\n<|im_start|>answer\n";
}

/// What its scorer reads: the first ASCII letter or digit, if that is one of a to e.
std::string first_letter(std::string const& text) {
  for (char const c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) continue;
    auto const letter = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return letter >= 'A' && letter <= 'E' ? std::string(1, letter) : "";
  }
  return "";
}

/// The mean of the rows of level 1, which the leaderboard calls the average.
void weigh_groups_alike(std::vector<ReportRow>& rows) {
  auto& whole = rows.front();
  for (size_t m = 0; m < whole.metrics.size(); ++m) {
    double sum = 0, squares = 0, count = 0;
    bool all_known = true;
    for (auto const& row : rows) {
      if (row.level != 1) continue;
      auto const& part = row.metrics[m];
      sum += part.value;
      squares += part.error.value_or(0) * part.error.value_or(0);
      all_known = all_known && part.error.has_value();
      ++count;
    }
    auto& metric = whole.metrics[m];
    metric.value = sum / count;
    metric.error = all_known ? std::optional(std::sqrt(squares) / count) : std::nullopt;
    metric.low = metric.high = std::nullopt;
    if (!metric.error) continue;
    metric.low = metric.value - 1.96 * *metric.error;
    metric.high = metric.value + 1.96 * *metric.error;
  }
}

struct FlowerTune final : EvalTask {
  explicit FlowerTune(TaskOptions const& options) {
    name = "flowertune_general_nlp";
    about =
        "FlowerTune's prompt without examples; first_letter reads the greedy text as its scorer does, acc is "
        "the likeliest of the four letters; the whole is the mean of the three groups";
    FSLLM_CHECK(options.shots.value_or(0) == 0,
                "{} {} (FlowerTune's protocol has no examples). Leave it out.", options.shots_option,
                *options.shots);
    metrics = {{.name = "acc", .is_choice = true},
               {.name = "acc", .filter = "first_letter", .is_choice = true}};
    for (auto const& [subject, group] : detail::mmlu_subjects_in(options.data))
      if (std::string(group) != "other") add(subject, group, options);
    FSLLM_CHECK(!items.empty(), "{} holds no subject of STEM, social sciences or humanities. Add them.",
                (options.data / "mmlu/test").string());
  }

  void add(std::string const& subject, std::string const& group, TaskOptions const& options) {
    auto const questions = detail::read_mmlu(options.data, "test", subject);
    for (size_t i = 0; i < limited(questions.size(), options); ++i) {
      TaskItem item{.groups = {name + "_" + group}};
      item.question = prompt_of(questions[i]);
      item.gold = questions[i].answer;
      item.target = std::string(1, kLetters[static_cast<size_t>(item.gold)]);
      item.choices = {"A", "B", "C", "D"};
      item.writing.as_long_as = "A";
      items.push_back(std::move(item));
    }
  }

  ItemScore score(size_t item, ItemAnswer const& answer) const override {
    auto const chosen = std::string(1, kLetters[detail::likeliest(answer)]);
    auto const read = first_letter(answer.texts.front());
    auto const& target = items[item].target;
    return {chosen + "," + read, {chosen == target ? 1.0 : 0.0, read == target ? 1.0 : 0.0}};
  }

  /// The best constant letter of the average, not of the rows together.
  double best_letter() const {
    double best = 0;
    for (int64_t letter = 0; letter < 4; ++letter) {
      double sum = 0;
      std::set<std::string> groups;
      for (auto const& item : items) groups.insert(item.groups.front());
      for (auto const& group : groups) {
        double all = 0, right = 0;
        for (auto const& item : items) {
          if (item.groups.front() != group) continue;
          ++all;
          right += item.gold == letter ? 1 : 0;
        }
        sum += right / all;
      }
      best = std::max(best, sum / static_cast<double>(groups.size()));
    }
    return best;
  }

  std::vector<ReportRow> report(std::vector<ItemScore> const& scores) const override {
    auto rows = mean_rows(name, metrics, items, scores);
    weigh_groups_alike(rows);
    for (auto& metric : rows.front().metrics) metric.constant = best_letter();
    return rows;
  }
};

}  // namespace

std::unique_ptr<EvalTask> flowertune_task(TaskOptions const& options) {
  return std::make_unique<FlowerTune>(options);
}

}  // namespace fsllm
