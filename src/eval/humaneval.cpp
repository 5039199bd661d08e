// SPDX-License-Identifier: Apache-2.0
// HumanEval (Chen et al. 2021) with FS-LLM's prompt and clean-up (llm/eval/eval_for_code/humaneval.py): the
// bare prompt, five texts of 128 tokens, drawn at temperature 0.1 with top_k 40 and top_p 0.75.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/utf8.hpp"
#include "fsllm/eval/sandbox.hpp"
#include "fsllm/eval/task.hpp"
#include "rows.hpp"

namespace fsllm {
namespace {

constexpr int64_t kSamples = 5;

/// FS-LLM's clean_answer; the stop strings have cut the text already.
std::string completion_of(std::string const& text) {
  auto const code = replace_all(text, "\xC2\xA0", "");
  return "    " + code.substr(std::min(code.size(), code.find_first_not_of(' ')));
}

struct HumanEval final : EvalTask {
  explicit HumanEval(TaskOptions const& options) {
    name = "humaneval";
    version = 2;
    about =
        "five completions at temperature 0.1, top_k 40 and top_p 0.75, run against the problem's tests in a "
        "sandbox; pass@k is the unbiased estimate of Chen et al. 2021";
    metrics = {{.name = "pass@1", .is_share = false}, {.name = "pass@5"}};
    shots_of(options, name, 0, 0);
    auto file = options.data / "humaneval/HumanEval.jsonl.gz";
    if (!std::filesystem::exists(file)) file = options.data / "humaneval/HumanEval.jsonl";
    detail::for_each_row(file, options.limit, [&](detail::TaskRow const& row) {
      TaskItem item;
      item.question = row.text("prompt");
      item.target = row.text("task_id");
      item.writing.max_tokens = 128;
      item.writing.stops = {"\nclass", "\ndef", "\n#", "\nif", "\nprint", "\nassert"};
      item.writing.temperature = 0.1;
      item.writing.top_k = 40;
      item.writing.top_p = 0.75;
      item.writing.samples = kSamples;
      checks_.push_back("\n" + row.text("test") + "\ncheck(" + row.text("entry_point") + ")\n");
      items.push_back(std::move(item));
    });
  }
  ItemScore score(size_t item, ItemAnswer const& answer) const override {
    std::string passed;
    for (auto const& text : answer.texts)
      passed += passes_in_sandbox(items[item].question + completion_of(text) + checks_[item]) ? '1' : '0';
    // 1 - C(n - c, k) / C(n, k) for n = 5: c / 5, and whether any passed.
    auto const count = std::ranges::count(passed, '1');
    return {passed, {static_cast<double>(count) / kSamples, count > 0 ? 1.0 : 0.0}};
  }
  std::string cannot_judge() const override { return sandbox_problem(); }
  std::string answer_lines(std::vector<ItemAnswer> const& answers) const override {
    std::string lines;
    for (size_t i = 0; i < answers.size(); ++i)
      for (auto const& text : answers[i].texts) {
        nlohmann::ordered_json const line{{"task_id", items[i].target}, {"completion", completion_of(text)}};
        lines += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
      }
    return lines;
  }

 private:
  std::vector<std::string> checks_;
};

}  // namespace

std::unique_ptr<EvalTask> humaneval_task(TaskOptions const& options) {
  return std::make_unique<HumanEval>(options);
}

}  // namespace fsllm
