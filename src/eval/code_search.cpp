// SPDX-License-Identifier: Apache-2.0
// Does this code belong to that text? CodeSearchNet (Husain et al. 2019) and CoSQA (Huang et al. 2021) as
// FS-LLM asks it (llm/eval/eval_for_code/eval.py): 0 or 1 behind up to five rows of CoSQA's training file;
// prompts of more than 1,024 characters lose examples. FS-LLM shuffles the examples anew for each question.
#include <algorithm>
#include <filesystem>
#include <map>

#include "choice.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/eval/task.hpp"
#include "rows.hpp"

namespace fsllm {
namespace {

using detail::TaskRow;

constexpr int64_t kShots = 5;
/// FS-LLM's five examples, in its order.
constexpr char const* kExampleIds[kShots] = {"cosqa-train-0", "cosqa-train-9", "cosqa-train-2",
                                             "cosqa-train-18", "cosqa-train-4"};
constexpr size_t kMostCharacters = 1024;

int64_t label_of(TaskRow const& row, char const* key) {
  auto const& value = row.json.contains(key) ? row.json.at(key) : nlohmann::json();
  if (value == 0 || value == "0") return 0;
  if (value == 1 || value == "1") return 1;
  row.refuse(fmt::format("'{}' = {:.20} (0 or 1 is needed). Correct it.", key, value.dump()));
}

size_t characters(std::string const& text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xc0U) != 0x80U; }));
}

std::vector<std::string> read_examples(std::filesystem::path const& data) {
  auto const file = data / "cosqa-train.json";
  FSLLM_CHECK(std::filesystem::exists(file),
              "no {} (FS-LLM's examples are rows of it). Put CoSQA's training file there, or give --shots 0.",
              file.string());
  std::map<std::string, std::string> found;
  detail::for_each_row(file, 0, [&](TaskRow const& row) {
    auto const id = row.text("idx");
    if (std::ranges::find(kExampleIds, id) == std::end(kExampleIds)) return;
    found[id] = fmt::format("Document: {}\nCode: {}\nScore: {}\n\n", row.text("doc"), row.text("code"),
                            label_of(row, "label"));
  });
  std::vector<std::string> examples;
  for (auto const* id : kExampleIds) {
    FSLLM_CHECK(found.contains(id), "{} lacks the row {} (an example of FS-LLM's). Copy it again.",
                file.string(), id);
    examples.push_back(found[id]);
  }
  return examples;
}

struct CodeSearch final : EvalTask {
  CodeSearch(std::string const& name_, TaskOptions const& options) {
    name = name_;
    about =
        "FS-LLM's prompt; the answer is the likelier of 0 and 1. Prompts of more than 1,024 characters have "
        "fewer examples";
    metrics = {{.name = "acc", .is_choice = true}};
    shots = shots_of(options, name, kShots, kShots);
    if (shots > 0) examples_ = read_examples(options.data);
    examples_.resize(static_cast<size_t>(shots));
  }
  void add(std::string const& language, std::string const& document, std::string const& code, int64_t label) {
    TaskItem item{.groups = {name + "_" + language}, .question = {}};
    item.question = fmt::format("Document:{} {}\nCode: {}\nScore: ", language, document, code);
    item.examples = examples_for(item.question);
    item.choices = {"0", "1"};
    item.gold = label;
    item.target = std::to_string(label);
    items.push_back(std::move(item));
  }
  ItemScore score(size_t item, ItemAnswer const& answer) const override {
    auto const chosen = detail::likeliest(answer);
    return {std::to_string(chosen), {static_cast<int64_t>(chosen) == items[item].gold ? 1.0 : 0.0}};
  }

 private:
  /// The first examples, as many as leave the prompt short enough.
  std::shared_ptr<TaskExamples const> examples_for(std::string const& question) const {
    auto examples = std::make_shared<TaskExamples>();
    examples->heading =
        "Input: a piece of code and a document\nOutput: 0 or 1 score indicating the degree of matching "
        "between the code and the document, with 0 indicating a mismatch and 1 indicating a match.\n\n";
    examples->shots = examples_;
    auto length = characters(examples->heading + question);
    for (auto const& shot : examples_) length += characters(shot);
    for (; length > kMostCharacters && !examples->shots.empty(); examples->shots.pop_back())
      length -= characters(examples->shots.back());
    return examples;
  }
  std::vector<std::string> examples_;
};

}  // namespace

std::unique_ptr<EvalTask> code_search_net_task(TaskOptions const& options) {
  auto task = std::make_unique<CodeSearch>("code_search_net", options);
  detail::for_each_row(options.data / "csn_test.jsonl", options.limit, [&](TaskRow const& row) {
    task->add(row.text("category"), row.text("instruction"), row.text("input"), label_of(row, "output"));
  });
  return task;
}

std::unique_ptr<EvalTask> cosqa_task(TaskOptions const& options) {
  auto task = std::make_unique<CodeSearch>("cosqa", options);
  detail::for_each_row(options.data / "cosqa-dev.json", options.limit, [&](TaskRow const& row) {
    task->add("python", row.text("doc"), row.text("code"), label_of(row, "label"));
  });
  return task;
}

}  // namespace fsllm
