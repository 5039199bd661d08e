// SPDX-License-Identifier: Apache-2.0
// LAMBADA (Paperno et al. 2016) as lm-evaluation-harness' lambada_openai: the last word of a passage, scored
// behind the rest.
#include <cmath>

#include "fsllm/eval/task.hpp"
#include "perplexity.hpp"
#include "rows.hpp"

namespace fsllm {
namespace {

struct Lambada final : EvalTask {
  explicit Lambada(TaskOptions const& options) {
    name = "lambada";
    about = "the last word behind the rest of the passage: acc where it is the greedy one, perplexity a word";
    metrics = {{.name = "acc"}, {.name = "perplexity", .is_share = false, .higher_is_better = false}};
    shots_of(options, name, 0, 0);
    detail::for_each_row(options.data / "text/lambada_test.jsonl", options.limit,
                         [&](detail::TaskRow const& row) {
                           auto const text = row.text("text");
                           auto const blank = text.rfind(' ');
                           if (blank == std::string::npos)
                             row.refuse("'text' is one word (the last one is asked for). Remove the row.");
                           TaskItem item;
                           item.question = text.substr(0, blank);
                           item.target = text.substr(blank);
                           item.choices = {item.target};
                           items.push_back(std::move(item));
                         });
  }
  /// The word's log-likelihood stands for its perplexity until the report.
  ItemScore score(size_t, ItemAnswer const& answer) const override {
    auto const& word = answer.choices.front();
    return {"", {word.is_greedy ? 1.0 : 0.0, word.loglikelihood}};
  }
  std::vector<ReportRow> report(std::vector<ItemScore> const& scores) const override {
    auto rows = EvalTask::report(scores);
    for (auto& row : rows) detail::make_perplexity(row.metrics.back());
    return rows;
  }
};

}  // namespace

std::unique_ptr<EvalTask> lambada_task(TaskOptions const& options) {
  return std::make_unique<Lambada>(options);
}

}  // namespace fsllm
