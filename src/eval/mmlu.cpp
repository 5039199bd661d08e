// SPDX-License-Identifier: Apache-2.0
// MMLU (Hendrycks et al. 2021) with the prompt and the scores of lm-evaluation-harness' task "mmlu".
#include <algorithm>

#include "choice.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/eval/task.hpp"
#include "mmlu_data.hpp"

namespace fsllm {
namespace {

using detail::MmluQuestion;

constexpr char const* kAnswerLetters = "ABCD";

std::string question_text(MmluQuestion const& question) {
  auto text = detail::trimmed(question.question);
  for (size_t c = 0; c < question.choices.size(); ++c)
    text += fmt::format("\n{}. {}", kAnswerLetters[c], question.choices[c]);
  return text + "\nAnswer:";
}

struct Mmlu final : EvalTask {
  explicit Mmlu(TaskOptions const& options) {
    name = "mmlu";
    about =
        "Hendrycks' prompt with the subject's first dev questions; the answer is the likeliest of ' A' to ' "
        "D'";
    metrics = {{.name = "acc", .is_choice = true}};
    shots = options.shots.value_or(5);
    for (auto const& [subject, group] : detail::mmlu_subjects_in(options.data)) add(subject, group, options);
  }

  void add(std::string const& subject, std::string const& group, TaskOptions const& options) {
    auto examples = std::make_shared<TaskExamples>();
    examples->heading =
        fmt::format("The following are multiple choice questions (with answers) about {}.\n\n",
                    detail::readable_subject(subject));
    if (shots > 0) {
      auto const dev = detail::read_mmlu(options.data, "dev", subject);
      shots_of(options, "mmlu/dev of " + subject, shots, static_cast<int64_t>(dev.size()));
      for (size_t i = 0; i < std::min(dev.size(), static_cast<size_t>(shots)); ++i)
        examples->shots.push_back(question_text(dev[i]) + " " +
                                  kAnswerLetters[static_cast<size_t>(dev[i].answer)] + "\n\n");
    }
    auto const questions = detail::read_mmlu(options.data, "test", subject);
    for (size_t i = 0; i < limited(questions.size(), options); ++i) {
      TaskItem item{.groups = {"mmlu_" + group, "mmlu_" + subject}, .examples = examples};
      item.question = question_text(questions[i]);
      item.gold = questions[i].answer;
      item.target = std::string(1, kAnswerLetters[static_cast<size_t>(item.gold)]);
      item.choices = {" A", " B", " C", " D"};
      items.push_back(std::move(item));
    }
  }

  ItemScore score(size_t item, ItemAnswer const& answer) const override {
    auto const chosen = detail::likeliest(answer);
    return {std::string(1, kAnswerLetters[chosen]),
            {static_cast<int64_t>(chosen) == items[item].gold ? 1.0 : 0.0}};
  }

  std::vector<ReportRow> report(std::vector<ItemScore> const& scores) const override {
    return mean_rows(name, metrics, items, scores, true);
  }
};

}  // namespace

std::unique_ptr<EvalTask> mmlu_task(TaskOptions const& options) {
  return std::make_unique<Mmlu>(options);
}

}  // namespace fsllm
