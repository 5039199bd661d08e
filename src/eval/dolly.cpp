// SPDX-License-Identifier: Apache-2.0
// databricks-dolly-15k's held-out rows: ROUGE-L of greedy answers to instructions, by category.
#include <filesystem>

#include "choice.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/eval/task.hpp"
#include "rows.hpp"
#include "text_scores.hpp"

namespace fsllm {
namespace {

/// Everything before the answer, and whether it writes its special tokens itself.
std::pair<std::string, bool> asked(Sample const& sample, TaskOptions const& options) {
  if (!options.prompt.chat) return {prompt_text(options.prompt, sample), false};
  FSLLM_ASSERT(options.tokenizer != nullptr);
  std::string text;
  for (auto const& piece : chat_segments(options.prompt, sample, *options.tokenizer)) {
    if (piece.scored) break;
    text += piece.text;
  }
  return {text, true};
}

struct Dolly final : EvalTask {
  explicit Dolly(TaskOptions const& options) {
    name = "dolly";
    about =
        "instructions under the adapter's own prompt template, greedy text of 256 tokens, ROUGE-L (F1, no "
        "stemming) against the response";
    metrics = {{.name = "rougeL", .is_share = false}};
    shots_of(options, name, 0, 0);
    auto file = options.data / "dolly15k-fed10/global_test.json";
    if (!std::filesystem::exists(file)) file = options.data / "dolly/test.jsonl";
    detail::for_each_row(file, options.limit, [&](detail::TaskRow const& row) {
      Sample sample;
      sample.instruction = row.text("instruction");
      sample.input = row.has("context") ? row.text("context") : "";
      sample.output = row.text("response");
      sample.place = row.place;
      TaskItem item;
      if (row.has("category")) item.groups = {name + "_" + row.text("category")};
      std::tie(item.question, item.has_specials) = asked(sample, options);
      item.target = sample.output;
      item.writing.max_tokens = 256;
      items.push_back(std::move(item));
    });
  }
  ItemScore score(size_t item, ItemAnswer const& answer) const override {
    return {detail::trimmed(answer.texts.front()),
            {detail::rouge_l(answer.texts.front(), items[item].target)}};
  }
};

}  // namespace

std::unique_ptr<EvalTask> dolly_task(TaskOptions const& options) {
  return std::make_unique<Dolly>(options);
}

}  // namespace fsllm
